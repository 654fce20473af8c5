{{- define "prfaas.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains "prfaas" .Release.Name -}}
{{- printf "%s-operator" (.Release.Name | trunc 54 | trimSuffix "-") -}}
{{- else -}}
{{- printf "%s-prfaas-operator" (.Release.Name | trunc 47 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "prfaas.selector" -}}
app.kubernetes.io/name: prfaas-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "prfaas.labels" -}}
{{ include "prfaas.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: prfaas
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "prfaas.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "prfaas.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | required "serviceAccount.name: is empty while serviceAccount.create is false; name the ServiceAccount to use" -}}
{{- end -}}
{{- end -}}

{{- define "prfaas.tlsSecretName" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "prfaas.fullname" .)) -}}
{{- end -}}

{{- /* The Service by which HorizontalPodAutoscalers and KEDA reach the operator. */ -}}
{{- define "prfaas.actuatorsService" -}}
{{- printf "%s-actuators" (include "prfaas.fullname" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* HOST:PORT that routers connect to. */ -}}
{{- define "prfaas.advertiseAddress" -}}
{{- if .Values.advertiseAddress -}}
{{- .Values.advertiseAddress -}}
{{- else if and .Values.service.clusterIP (ne .Values.service.clusterIP "None") -}}
{{- if contains ":" .Values.service.clusterIP -}}
{{- printf "[%s]:%d" .Values.service.clusterIP (int .Values.service.port) -}}
{{- else -}}
{{- printf "%s:%d" .Values.service.clusterIP (int .Values.service.port) -}}
{{- end -}}
{{- else -}}
{{- printf "%s.%s.svc:%d" (include "prfaas.fullname" .) .Release.Namespace (int .Values.service.port) -}}
{{- end -}}
{{- end -}}

{{- /* The host in it, without the brackets of IPv6. */ -}}
{{- define "prfaas.advertiseHost" -}}
{{- regexReplaceAll ":[0-9]+$" (include "prfaas.advertiseAddress" .) "" | trimPrefix "[" | trimSuffix "]" -}}
{{- end -}}

{{- /* Every name that the certificate is for, as a JSON list in a fixed order. */ -}}
{{- define "prfaas.certificateNames" -}}
{{- $service := include "prfaas.fullname" . -}}
{{- $names := list $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) (printf "%s.%s.svc.cluster.local" $service .Release.Namespace) (include "prfaas.advertiseHost" .) -}}
{{- if and .Values.service.clusterIP (ne .Values.service.clusterIP "None") -}}
{{- $names = append $names .Values.service.clusterIP -}}
{{- end -}}
{{- if .Values.service.loadBalancerIP -}}
{{- $names = append $names .Values.service.loadBalancerIP -}}
{{- end -}}
{{- $actuators := include "prfaas.actuatorsService" . -}}
{{- $names = concat $names (list (printf "%s.%s" $actuators .Release.Namespace) (printf "%s.%s.svc" $actuators .Release.Namespace) (printf "%s.%s.svc.cluster.local" $actuators .Release.Namespace)) -}}
{{- concat $names .Values.tls.extraNames | uniq | toJson -}}
{{- end -}}

{{- define "prfaas.tenantNamespaces" -}}
{{- .Values.tenantNamespaces | default (list .Release.Namespace) | uniq | sortAlpha | toJson -}}
{{- end -}}
