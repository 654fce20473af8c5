{{- /* The Secrets of the global Prometheus, by the folder that each is mounted at. */ -}}
{{- define "prfaas.prometheusSecrets" -}}
{{- with .Values.prometheus -}}
{{- $secrets := dict "ca" .caSecret.name "token" .bearerTokenSecret.name "basic-auth" .basicAuthSecret "client" .clientCertificateSecret "headers" .headersSecret -}}
{{- if and .bearerTokenSecret.name .basicAuthSecret -}}
{{- fail "prometheus.bearerTokenSecret.name and prometheus.basicAuthSecret are both given; leave one of them empty" -}}
{{- end -}}
{{- range $folder, $secret := $secrets }}
{{- if $secret }}
{{ $folder }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "prfaas.prometheusArguments" -}}
{{- with .Values.prometheus -}}
{{- $folder := "/etc/prfaas/prometheus" -}}
{{- with .url }}
- --prometheus-url={{ . }}
{{- end }}
- --prometheus-timeout-s={{ .timeoutSeconds }}
{{- range $name, $value := .headers }}
- {{ printf "--prometheus-header=%s=%s" $name $value | quote }}
{{- end }}
{{- if .caSecret.name }}
- --prometheus-ca-file={{ $folder }}/ca/{{ .caSecret.key }}
{{- end }}
{{- if .bearerTokenSecret.name }}
- --prometheus-bearer-token-file={{ $folder }}/token/{{ .bearerTokenSecret.key }}
{{- end }}
{{- if .basicAuthSecret }}
- --prometheus-username-file={{ $folder }}/basic-auth/username
- --prometheus-password-file={{ $folder }}/basic-auth/password
{{- end }}
{{- if .clientCertificateSecret }}
- --prometheus-client-certificate-file={{ $folder }}/client/tls.crt
- --prometheus-client-key-file={{ $folder }}/client/tls.key
{{- end }}
{{- if .headersSecret }}
- --prometheus-header-dir={{ $folder }}/headers
{{- end }}
{{- end -}}
{{- end -}}
