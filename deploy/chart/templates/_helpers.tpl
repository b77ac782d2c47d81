{{/* Names and labels that more than one object needs. */}}

{{- define "keyrack.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/*
The name of all objects. At most 50 characters: a StatefulSet's pods carry a label of its name and
eleven more, and a label holds 63. A release's name may have dots, a Service's may not.
*/}}
{{- define "keyrack.fullname" -}}
{{- $name := include "keyrack.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $full | replace "." "-" | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* What never changes in the life of a release: selectors are immutable. */}}
{{- define "keyrack.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keyrack.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "keyrack.serverLabels" -}}
{{ include "keyrack.selectorLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{- define "keyrack.labels" -}}
{{- with omit .Values.commonLabels "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/component" }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "keyrack.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | toString | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The annotations of an object: its own, which count more, and those of all objects. `list . own` */}}
{{- define "keyrack.annotations" -}}
{{- $root := index . 0 -}}
{{- with merge (dict) (index . 1) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "keyrack.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "keyrack.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "keyrack.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* "true" when the store is a Valkey server, empty when it is embedded in the one pod. */}}
{{- define "keyrack.valkey" -}}
{{- if or .Values.valkey.url .Values.valkey.existingSecret }}true{{ end -}}
{{- end }}

{{/* A size in Mi or Gi, as a number of Mi. The schema lets no other unit through. */}}
{{- define "keyrack.mebibytes" -}}
{{- if hasSuffix "Gi" . -}}
{{ mul (trimSuffix "Gi" . | int64) 1024 }}
{{- else -}}
{{ trimSuffix "Mi" . | int64 }}
{{- end -}}
{{- end }}

{{/* "true" when what the embedded store holds is on a volume as well. */}}
{{- define "keyrack.durable" -}}
{{- if and .Values.persistence.enabled (not (include "keyrack.valkey" .)) }}true{{ end -}}
{{- end }}

{{/*
With Valkey there are other pods, and what sends clients to this one needs time to learn that it goes. The embedded
store's pod has no other: the drain only lets clients that are here end their connections, and delays the next pod.
*/}}
{{- define "keyrack.drainSeconds" -}}
{{- if kindIs "string" .Values.drainSeconds -}}
{{ ternary 5 1 (eq (include "keyrack.valkey" .) "true") }}
{{- else -}}
{{ int64 .Values.drainSeconds }}
{{- end -}}
{{- end }}

{{/* A size as the program takes it (8m, 512k, 1.5g), as a number of Mi, rounded up. */}}
{{- define "keyrack.sizeInMebibytes" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $unit := regexFind "[a-zA-Z]" . | lower -}}
{{- $factor := get (dict "k" 0.0009765625 "m" 1.0 "g" 1024.0 "t" 1048576.0) $unit | default 0.00000095367431640625 -}}
{{ mulf $number $factor | ceil | int64 }}
{{- end }}

{{/* The longest body that is taken, in Mi: as the program's own default. */}}
{{- define "keyrack.bodyInMebibytes" -}}
{{- if .Values.settings.maxBody -}}
{{ include "keyrack.sizeInMebibytes" .Values.settings.maxBody }}
{{- else -}}
{{ max 8 (include "keyrack.sizeInMebibytes" (.Values.settings.maxValue | default "1m") | int64) }}
{{- end -}}
{{- end }}

{{/*
The least that limits.memory may be, in Mi: what the processes take under load, measured, and room, beside the store and
what is held for clients. A worker takes 24Mi, and three times the longest body while it takes one apart. A snapshot is
taken by a process of its own, which takes 9Mi. Where settings.clientMemory is empty, the program takes an eighth of
what the store leaves of the limit for clients, but at least 16Mi and at most 512Mi.
*/}}
{{- define "keyrack.memoryNeeded" -}}
{{- $store := ternary 0 (include "keyrack.mebibytes" .Values.memory | int64) (eq (include "keyrack.valkey" .) "true") -}}
{{- $saving := ternary 32 0 (eq (include "keyrack.durable" .) "true") -}}
{{- $worker := add 24 (mul 3 (include "keyrack.bodyInMebibytes" . | int64)) -}}
{{- $processes := add 32 $saving (mul $worker (int64 .Values.workers)) -}}
{{- if .Values.settings.clientMemory -}}
{{ add $store $processes (include "keyrack.sizeInMebibytes" .Values.settings.clientMemory | int64) }}
{{- else -}}
{{ add $store (max (add $processes 16) (min (add $processes 512) (div (add (mul 8 $processes) 6) 7))) }}
{{- end -}}
{{- end }}

{{/* "true" when the StatefulSet makes the claim for that volume itself. */}}
{{- define "keyrack.claims" -}}
{{- if and (include "keyrack.durable" .) (not .Values.persistence.existingClaim) }}true{{ end -}}
{{- end }}

{{/* A value as the text of a variable: whole numbers without the exponent that Go would print. */}}
{{- define "keyrack.text" -}}
{{- if kindIs "float64" . -}}
{{ ternary (int64 . | toString) (toString .) (eq (floor .) .) }}
{{- else if kindIs "slice" . -}}
{{ join "," . }}
{{- else -}}
{{ toString . }}
{{- end -}}
{{- end }}
