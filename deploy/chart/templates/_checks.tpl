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
{{- if and .Values.auth.enabled (has "*" .Values.settings.corsOrigins) -}}
{{- fail "settings.corsOrigins holds `*`, which lets in the pages of every site and does not go together with access control: name the origins, like https://app.example.org, or set auth.enabled to false." -}}
{{- end -}}
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
{{- if .Values.persistence.enabled -}}
{{- include "keyrack.checkVolume" . -}}
{{- end -}}
{{- $valkey := .Values.valkey -}}
{{- if or $valkey.auth.existingSecret $valkey.tls.existingSecret (gt (int64 $valkey.wait) 0) $valkey.mayEvict -}}
{{- fail "valkey.auth, valkey.tls, valkey.wait and valkey.mayEvict say how to use Valkey, and nothing says where it is: set valkey.url or valkey.existingSecret." -}}
{{- end -}}
{{- end }}

{{/*
While a snapshot is taken there is one more than are kept, and what is written meanwhile. In the mode
commit each has a journal, which a snapshot replaces when it is as long as the store may be, or 64Mi.
*/}}
{{- define "keyrack.checkVolume" -}}
{{- $store := include "keyrack.mebibytes" .Values.memory | int64 -}}
{{- $keep := int64 .Values.settings.snapshotKeep -}}
{{- $size := .Values.persistence.size -}}
{{- $needed := ternary (mul (add $keep 1) (add $store (max $store 64))) (mul (add $keep 2) $store) (eq .Values.persistence.durability "commit") -}}
{{- if lt (include "keyrack.mebibytes" $size | int64) $needed -}}
{{- fail (printf "persistence.size: %s is too little for what %s keeps of a store of %s with settings.snapshotKeep: %d: set it to at least %dMi, or lower memory or snapshotKeep." $size .Values.persistence.durability .Values.memory $keep $needed) -}}
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
{{- if eq .Values.settings.whenFull "evict" -}}
{{- fail "settings.whenFull: evict has no meaning with Valkey, which removes keys itself where its maxmemory-policy says so: set it to reject, and see valkey.mayEvict." -}}
{{- end -}}
{{- if and .Values.valkey.tls.clientCertificate (not .Values.valkey.tls.existingSecret) -}}
{{- fail "valkey.tls.clientCertificate is true and no Secret holds the certificate: set valkey.tls.existingSecret to one with tls.crt, tls.key and ca.crt." -}}
{{- end -}}
{{- if .Values.valkey.url -}}
{{- include "keyrack.checkUrl" . -}}
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

{{/* No urlParse: Go may refuse several hosts with a port each. */}}
{{- define "keyrack.checkUrl" -}}
{{- $valkey := .Values.valkey -}}
{{- $scheme := regexFind "^[a-z-]+" $valkey.url -}}
{{- $authority := regexReplaceAll "^[a-z-]+://([^/?#]*).*$" $valkey.url "${1}" -}}
{{- $hosts := regexReplaceAll "^.*@" $authority "" -}}
{{- if and $valkey.tls.existingSecret (not (hasPrefix "valkeys" $scheme)) -}}
{{- fail "valkey.tls.existingSecret is set and valkey.url has no TLS: begin it with valkeys instead of valkey, or empty valkey.tls.existingSecret." -}}
{{- end -}}
{{- if and $valkey.auth.existingSecret (regexMatch ":.*@" $authority) -}}
{{- fail "valkey.url holds a password and valkey.auth.existingSecret names another: keep one of them." -}}
{{- end -}}
{{- $open := list -}}
{{- range $valkey.ports -}}
{{- $open = append $open (int64 .) -}}
{{- end -}}
{{- $usual := ternary "26379" "6379" (hasSuffix "sentinel" $scheme) -}}
{{- range splitList "," $hosts -}}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default $usual | int64 -}}
{{- if and $.Values.networkPolicy.enabled (not (has $port $open)) -}}
{{- fail (printf "valkey.url names port %d, which the network policy does not let through: add it to valkey.ports." $port) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkMemory" -}}
{{- $limit := (((.Values.resources).limits).memory) | default "" -}}
{{- $needed := include "keyrack.memoryNeeded" . | int64 -}}
{{- $clients := .Values.settings.clientMemory -}}
{{- if and $clients (lt (include "keyrack.sizeInMebibytes" $clients | int64) 8) -}}
{{- fail (printf "settings.clientMemory: %s is too little: set it to at least 8m, or leave it empty." $clients) -}}
{{- end -}}
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
