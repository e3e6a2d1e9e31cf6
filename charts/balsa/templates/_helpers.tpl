{{- define "balsa.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The StatefulSet, and what all other names begin with. Short enough for ordinals and suffixes. */}}
{{- define "balsa.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "balsa.name" .) .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "balsa.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "balsa.headless" -}}
{{ include "balsa.fullname" . }}-headless
{{- end }}

{{- define "balsa.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "balsa.fullname" .) }}
{{- end }}

{{- define "balsa.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What never changes: it selects the nodes' Pods. */}}
{{- define "balsa.selector" -}}
app.kubernetes.io/name: {{ include "balsa.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end }}

{{- define "balsa.labels" -}}
{{ include "balsa.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The failover test's Pod: no node, but allowed to reach them. */}}
{{- define "balsa.testLabels" -}}
app.kubernetes.io/name: {{ include "balsa.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: failover-test
{{- end }}

{{/* What the StatefulSet records of itself, if it is there: as JSON, `{}` if not. */}}
{{- define "balsa.live" -}}
{{- $live := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "balsa.fullname" .) -}}
{{- if $live -}}
{{- $notes := $live.metadata.annotations | default dict -}}
{{ dict "replicas" $live.spec.replicas "initialSize" (index $notes "balsa.kv/initial-size") "replicaCount" (index $notes "balsa.kv/replica-count") | toJson }}
{{- else -}}
{}
{{- end -}}
{{- end }}

{{/* How many found: fixed by the first install. */}}
{{- define "balsa.initialSize" -}}
{{- $live := include "balsa.live" . | fromJson -}}
{{- if $live.initialSize -}}
{{- if and .Values.initialSize (ne (toString .Values.initialSize) $live.initialSize) -}}
{{- fail (printf "initialSize is %v, but this cluster was founded by %s: leave it out" .Values.initialSize $live.initialSize) -}}
{{- end -}}
{{ $live.initialSize }}
{{- else if .Values.initialSize -}}
{{- if lt (int .Values.replicaCount) (int .Values.initialSize) -}}
{{- if not (lookup "v1" "Service" .Release.Namespace (include "balsa.headless" .)) -}}
{{- fail (printf "replicaCount is %v, but initialSize is %v: a cluster is founded only when all of its founders are there" .Values.replicaCount .Values.initialSize) -}}
{{- end -}}
{{- end -}}
{{ .Values.initialSize }}
{{- else -}}
{{- if lt (int .Values.replicaCount) 1 -}}
{{- fail "replicaCount is 0: nobody is there to found the cluster; install with 1 or more" -}}
{{- end -}}
{{ min (int .Values.replicaCount) 9 }}
{{- end -}}
{{- end }}

{{/* What `kubectl scale` made of the size stays, until the value itself changes. */}}
{{- define "balsa.replicas" -}}
{{- $live := include "balsa.live" . | fromJson -}}
{{- if and $live.replicaCount (eq $live.replicaCount (toString .Values.replicaCount)) -}}
{{ int $live.replicas }}
{{- else -}}
{{ .Values.replicaCount }}
{{- end -}}
{{- end }}

{{/* The founders' peer addresses, by slot. */}}
{{- define "balsa.initialPeers" -}}
{{- $peers := list -}}
{{- range $slot := until (include "balsa.initialSize" . | int) -}}
{{- $peers = append $peers (printf "%d=%s-%d.%s.%s.svc:3300" $slot (include "balsa.fullname" $) $slot (include "balsa.headless" $) $.Release.Namespace) -}}
{{- end -}}
{{ join "," $peers }}
{{- end }}
