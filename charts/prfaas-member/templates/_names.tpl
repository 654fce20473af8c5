{{- define "prfaas-member.labels" -}}
app.kubernetes.io/name: prfaas-member
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: prfaas
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "prfaas-member.namespace" -}}
{{- .Values.serviceAccount.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "prfaas-member.clusterRole" -}}
{{- printf "%s-%s-member" (include "prfaas-member.namespace" .) .Values.serviceAccount.name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "prfaas-member.tokenSecret" -}}
{{- .Values.token.name | default (printf "%s-token" .Values.serviceAccount.name) -}}
{{- end -}}
