{{/*
All objects have fixed names, whatever the release is called: two agents on a node would undo each other's work, so a second release
has to be refused, as it is by Helm when the names are taken.
*/}}
{{- define "egressd.labels" -}}
{{ include "egressd.selector" . }}
{{ include "egressd.labels.release" . }}
{{- end }}
{{- define "egressd.controller.labels" -}}
{{ include "egressd.controller.selector" . }}
{{ include "egressd.labels.release" . }}
{{- end }}
{{- define "egressd.cloud.labels" -}}
{{ include "egressd.cloud.selector" . }}
{{ include "egressd.labels.release" . }}
{{- end }}
{{- define "egressd.proxy.labels" -}}
{{ include "egressd.proxy.selector" . }}
{{ include "egressd.labels.release" . }}
{{- end }}
{{- define "egressd.labels.release" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Who the agents are. */}}
{{- define "egressd.serviceAccount" -}}
{{ .Values.serviceAccount.name | default "egressd" }}
{{- end }}

{{/* Who the controllers are. */}}
{{- define "egressd.controller.serviceAccount" -}}
{{ .Values.controller.serviceAccount.name | default "egressd-controller" }}
{{- end }}

{{/* Who talks to the cloud. */}}
{{- define "egressd.cloud.serviceAccount" -}}
{{ .Values.cloud.serviceAccount.name | default "egressd-cloud" }}
{{- end }}

{{/* Who opens ports in pods. */}}
{{- define "egressd.proxy.serviceAccount" -}}
{{ .Values.proxy.serviceAccount.name | default "egressd-proxy" }}
{{- end }}

{{- define "egressd.selector" -}}
app.kubernetes.io/name: egressd
{{- end }}
{{/* Another name, and not a component of the same: the DaemonSet's selector, which cannot be changed, is that name alone. */}}
{{- define "egressd.controller.selector" -}}
app.kubernetes.io/name: egressd-controller
{{- end }}

{{- define "egressd.cloud.selector" -}}
app.kubernetes.io/name: egressd-cloud
{{- end }}

{{- define "egressd.proxy.selector" -}}
app.kubernetes.io/name: egressd-proxy
{{- end }}

{{/* CEL: whether a request is by an agent, by a controller, or by egressd-cloud. */}}
{{- define "egressd.by.agent" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "egressd.serviceAccount" . }}'
{{- end }}
{{- define "egressd.by.controller" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "egressd.controller.serviceAccount" . }}'
{{- end }}
{{- define "egressd.by.cloud" -}}
request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "egressd.cloud.serviceAccount" . }}'
{{- end }}

{{- define "egressd.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Host and port of metrics.address. */}}
{{- define "egressd.metrics.host" -}}
{{ regexReplaceAll ":[0-9]+$" .Values.metrics.address "" | trimAll "[]" }}
{{- end }}
{{- define "egressd.metrics.port" -}}
{{ regexFind "[0-9]+$" .Values.metrics.address }}
{{- end }}

{{/* Where the Services are that a ServiceMonitor selects, and what it asks of both kinds of endpoints. */}}
{{- define "egressd.monitor.from" -}}
namespaceSelector:
  matchNames: [{{ .Release.Namespace }}]
{{- end }}
{{- define "egressd.monitor.endpoint" -}}
port: metrics
interval: {{ .interval }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A probe: kubelet is on the node, as the agent is, so it asks where the agent listens. */}}
{{- define "egressd.probe" -}}
{{- $host := include "egressd.metrics.host" .root -}}
httpGet:
  host: {{ has $host (list "0.0.0.0" "::") | ternary "127.0.0.1" $host | quote }}
  port: {{ include "egressd.metrics.port" .root }}
  path: {{ .path }}
{{- end }}

{{/* The same of the proxy. */}}
{{- define "egressd.proxy.probe" -}}
{{- $values := dict "Values" (dict "metrics" (dict "address" .root.Values.proxy.metricsAddress)) -}}
{{ include "egressd.probe" (dict "root" $values "path" .path) }}
{{- end }}

{{/*
CEL that turns the address that the given expression has into text which sorts as addresses do: CEL knows no order of addresses.
All parts get their full width, and the zeros that "::" stands for are put back: 172.31.0.14 is 4172031000014.
*/}}
{{- define "egressd.sortable" -}}
(ip({{ . }}).family() == 4
  ? '4' + string(ip({{ . }})).split('.').map(part, ('00' + part).substring(size(part) - 1)).join('')
  : [string(ip({{ . }})).split('::')
      .map(half, half == '' ? '' : half.split(':').map(part, ('000' + part).substring(size(part) - 1)).join(''))]
    .map(halves, '6' + halves[0] + '00000000000000000000000000000000'.substring(size(halves.join('')))
      + (size(halves) > 1 ? halves[1] : ''))[0])
{{- end }}
