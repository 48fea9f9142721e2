{{- define "weir.name" -}}
{{- printf "%s" .Release.Name | trunc 38 | trimSuffix "-" -}}
{{- end }}

{{- define "weir.labels" -}}
app.kubernetes.io/name: weir-cloud
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "weir.selector" -}}
app.kubernetes.io/name: weir-cloud
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "weir.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The roles that run, by name: their arguments, how many, the most that have something to do, and the
consumer groups and topics that they lag in. */}}
{{- define "weir.roles" -}}
{{- $scaling := .Values.autoscaling -}}
{{- $process := dict "group" $scaling.processGroup "topic" "weir.readings" -}}
{{- $pods := div (add $scaling.partitions (sub $scaling.workers 1)) $scaling.workers | int -}}
{{- if .Values.together -}}
{{- $lags := list $process -}}
{{- range $scaling.stores }}
{{- $lags = append $lags (dict "group" (printf "weir-sink-%s" .) "topic" "weir.enriched") -}}
{{- end }}
{{- $most := ternary $scaling.partitions $pods (gt (len $lags) 1) | int -}}
all: {{ dict "args" (list "run") "replicas" .Values.replicas "most" $most "lags" $lags | toJson }}
{{- else -}}
{{- range $role, $settings := .Values.roles }}
{{- if $settings.enabled }}
{{- if eq $role "process" }}
{{ $role }}: {{ dict "args" (list "process") "replicas" $settings.replicas "most" $pods "lags" (list $process) | toJson }}
{{- else }}
{{- $lag := dict "group" (printf "weir-sink-%s" $role) "topic" "weir.enriched" }}
{{ $role }}: {{ dict "args" (list "sink" $role) "replicas" $settings.replicas "most" (int $scaling.partitions) "lags" (list $lag) | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- end }}

{{- define "weir.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "weir.mounts" -}}
- {name: config, mountPath: /etc/weir, readOnly: true}
{{- if .Values.secret }}
- {name: secret, mountPath: /run/secrets/weir, readOnly: true}
{{- end }}
{{- if .Values.tlsSecret }}
- {name: tls, mountPath: /run/tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* With the settings of this ConfigMap. */}}
{{- define "weir.volumes" -}}
{{- $config := .config -}}
{{- with .root -}}
- name: config
  configMap: {name: {{ $config }}}
{{- if .Values.secret }}
- name: secret
  secret: {secretName: {{ .Values.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.tlsSecret }}
- name: tls
  secret: {secretName: {{ .Values.tlsSecret }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.environment" -}}
- name: WEIR_LOG
  value: {{ .Values.log | quote }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
