{{- define "vip.labels" -}}
app.kubernetes.io/name: vip
app.kubernetes.io/component: control-plane-endpoint
{{- end }}

{{- define "vip.selector" -}}
app.kubernetes.io/name: vip
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* What cannot work is refused here, in a sentence. */}}
{{- define "vip.check" -}}
{{- if and (not .Values.vip) (not .Values.config) }}
{{- fail "set vip, like 10.0.0.10:6443, or config" }}
{{- end }}
{{- if and .Values.config (or .Values.vip .Values.nodes .Values.extraArgs) }}
{{- fail "config replaces vip, nodes and extraArgs: set either it or them" }}
{{- end }}
{{- if and .Values.key.hostPath .Values.key.secretName }}
{{- fail "set key.hostPath or key.secretName, not both" }}
{{- end }}
{{- if and .Values.config .Values.key.hostPath (eq (clean .Values.key.hostPath) "/etc/vip") }}
{{- fail "the pod has config at /etc/vip: let key.hostPath be another directory, and name that in key_file" }}
{{- end }}
{{- end }}
