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
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false, and serviceAccount.name is empty: name the account that the nodes are to have" -}}
{{- end -}}
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

{{/* How many found: fixed by the first install. Where there is no cluster to look at, nobody can tell an install from a
cluster that was scaled in since: so fewer replicas than founders are taken, and the notes say what that means. */}}
{{- define "balsa.initialSize" -}}
{{- $live := include "balsa.live" . | fromJson -}}
{{- if $live.initialSize -}}
{{- if and .Values.initialSize (ne (toString .Values.initialSize) $live.initialSize) -}}
{{- fail (printf "initialSize is %v, but this cluster was founded by %s: leave it out" .Values.initialSize $live.initialSize) -}}
{{- end -}}
{{ $live.initialSize }}
{{- else if .Values.initialSize -}}
{{ .Values.initialSize }}
{{- else -}}
{{- if lt (int .Values.replicaCount) 1 -}}
{{- fail "replicaCount is 0: nobody is there to found the cluster; install with 1 or more, or say how many founded it, as initialSize" -}}
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
