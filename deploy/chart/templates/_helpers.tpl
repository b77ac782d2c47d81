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
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "keyrack.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
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
The least that limits.memory may be, in Mi: what a process takes under load, measured, and room. A
snapshot is taken by a process of its own, which takes 9Mi.
*/}}
{{- define "keyrack.memoryNeeded" -}}
{{- $store := ternary 0 (include "keyrack.mebibytes" .Values.memory | int64) (eq (include "keyrack.valkey" .) "true") -}}
{{- $saving := ternary 32 0 (eq (include "keyrack.durable" .) "true") -}}
{{ add $store 32 $saving (mul 48 (int64 .Values.workers)) }}
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
