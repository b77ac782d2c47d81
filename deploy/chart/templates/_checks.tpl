{{/*
What the schema cannot see: values that contradict each other. Each is refused with a sentence that
says what to set instead, before anything in the cluster is changed.
*/}}
{{- define "keyrack.check" -}}
{{- $valkey := include "keyrack.valkey" . -}}
{{- $name := include "keyrack.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of a Service: it has to begin with a letter and to hold only a-z, 0-9 and hyphens. Set fullnameOverride." $name) -}}
{{- end -}}
{{- if $valkey -}}
{{- include "keyrack.checkValkey" . -}}
{{- else -}}
{{- include "keyrack.checkEmbedded" . -}}
{{- end -}}
{{- include "keyrack.checkMemory" . -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled is true and ingress.hosts is empty: name at least one host, like ingress.hosts={keyrack.example.org}." -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkEmbedded" -}}
{{- if gt (int64 .Values.replicaCount) 1 -}}
{{- fail (printf "replicaCount: %d is not possible with the embedded store: it lives in the memory of one pod, and each further pod would be a store of its own. For more pods set valkey.url to a Valkey server; otherwise leave replicaCount at 1 and give that pod more workers." (int64 .Values.replicaCount)) -}}
{{- end -}}
{{- $store := include "keyrack.mebibytes" .Values.memory | int64 -}}
{{- if lt $store 8 -}}
{{- fail (printf "memory: %s is too little: a store needs at least 8Mi." .Values.memory) -}}
{{- end -}}
{{- $volume := include "keyrack.mebibytes" .Values.persistence.size | int64 -}}
{{- if and .Values.persistence.enabled (lt $volume (mul $store 4)) -}}
{{- fail (printf "persistence.size: %s cannot keep a store of %s: set it to at least %dMi, or lower memory." .Values.persistence.size .Values.memory (mul $store 4)) -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkValkey" -}}
{{- $scaling := .Values.valkey.autoscaling -}}
{{- if and .Values.valkey.url .Values.valkey.existingSecret -}}
{{- fail "valkey.url and valkey.existingSecret are both set: keep the one that holds the URL and empty the other." -}}
{{- end -}}
{{- if .Values.persistence.enabled -}}
{{- fail "persistence.enabled has no meaning with Valkey, which keeps the data itself: set persistence.enabled to false, or empty valkey.url and valkey.existingSecret." -}}
{{- end -}}
{{- if and $scaling.enabled (gt (int64 .Values.replicaCount) 1) -}}
{{- fail (printf "replicaCount: %d and valkey.autoscaling.enabled contradict each other: set valkey.autoscaling.minReplicas instead, or valkey.autoscaling.enabled to false." (int64 .Values.replicaCount)) -}}
{{- end -}}
{{- if and $scaling.enabled (gt (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) -}}
{{- fail (printf "valkey.autoscaling.minReplicas: %d is more than maxReplicas: %d: raise maxReplicas or lower minReplicas." (int64 $scaling.minReplicas) (int64 $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and $scaling.enabled (not ((.Values.resources).requests).cpu) -}}
{{- fail "valkey.autoscaling measures CPU against resources.requests.cpu, which is not set: set it, or valkey.autoscaling.enabled to false." -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkMemory" -}}
{{- $limit := (((.Values.resources).limits).memory) | default "" -}}
{{- $needed := include "keyrack.memoryNeeded" . | int64 -}}
{{- if not $limit -}}
{{- fail (printf "resources.limits.memory is not set: a store in memory needs a limit. Set it to at least %dMi." $needed) -}}
{{- end -}}
{{- $allowed := include "keyrack.mebibytes" $limit | int64 -}}
{{- if lt $allowed $needed -}}
{{- if include "keyrack.valkey" . -}}
{{- fail (printf "resources.limits.memory: %s is too little for %d workers: set it to at least %dMi, or lower workers." $limit (int64 .Values.workers) $needed) -}}
{{- else -}}
{{- fail (printf "resources.limits.memory: %s is too little for a store of %s and %d workers: set it to at least %dMi, or lower memory or workers." $limit .Values.memory (int64 .Values.workers) $needed) -}}
{{- end -}}
{{- end -}}
{{- $request := (((.Values.resources).requests).memory) | default $limit -}}
{{- if gt (include "keyrack.mebibytes" $request | int64) $allowed -}}
{{- fail (printf "resources.requests.memory: %s is more than resources.limits.memory: %s: set both to the same." $request $limit) -}}
{{- end -}}
{{- end }}
