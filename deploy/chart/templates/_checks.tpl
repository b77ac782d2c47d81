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
{{- include "keyrack.checkTexts" . -}}
{{- include "keyrack.checkService" . -}}
{{- include "keyrack.checkEnvironment" . -}}
{{- include "keyrack.checkCluster" . -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled is true and httpRoute.parentRefs is empty: name the Gateway, like httpRoute.parentRefs[0].name=public." -}}
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
{{- if and .Values.persistence.existingClaim (not .Values.persistence.enabled) -}}
{{- fail "persistence.existingClaim is set and persistence.enabled is false: set it to true, or empty persistence.existingClaim." -}}
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

{{/*
On the command line a hash of digits alone is a number, and true a truth. The schema lets these through where only a text
has a meaning, because its own message would not say what to do.
*/}}
{{- define "keyrack.checkTexts" -}}
{{- if not (kindIs "string" .Values.image.tag) -}}
{{- fail (printf "image.tag: %s is a number, and a tag is a text: use --set-string instead of --set, or quotes in a file of values." (include "keyrack.text" .Values.image.tag)) -}}
{{- end -}}
{{- $maps := dict "commonLabels" .Values.commonLabels "commonAnnotations" .Values.commonAnnotations "podLabels" .Values.podLabels "podAnnotations" .Values.podAnnotations "nodeSelector" .Values.nodeSelector "service.annotations" .Values.service.annotations "ingress.annotations" .Values.ingress.annotations "httpRoute.annotations" .Values.httpRoute.annotations "persistence.annotations" .Values.persistence.annotations "serviceAccount.annotations" .Values.serviceAccount.annotations "serviceMonitor.labels" .Values.serviceMonitor.labels "metrics.rules.labels" .Values.metrics.rules.labels -}}
{{- range $map, $pairs := $maps -}}
{{- range $key, $value := $pairs -}}
{{- if not (kindIs "string" $value) -}}
{{- fail (printf "%s: %s is no text at %s: use --set-string instead of --set, or quotes in a file of values." $map (include "keyrack.text" $value) $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkService" -}}
{{- $service := .Values.service -}}
{{- if and (or $service.loadBalancerClass $service.loadBalancerSourceRanges) (ne $service.type "LoadBalancer") -}}
{{- fail (printf "service.loadBalancerClass and service.loadBalancerSourceRanges are about a load balancer, and service.type is %s: set it to LoadBalancer, or empty them." $service.type) -}}
{{- end -}}
{{- if and $service.nodePort (eq $service.type "ClusterIP") -}}
{{- fail "service.nodePort is set and service.type is ClusterIP, which opens no port of the nodes: set it to NodePort or LoadBalancer, or empty service.nodePort." -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkEnvironment" -}}
{{- $ours := list -}}
{{- range include "keyrack.environment" . | fromYamlArray -}}
{{- $ours = append $ours .name -}}
{{- end -}}
{{- range .Values.env -}}
{{- if has .name $ours -}}
{{- fail (printf "env: %s is a variable that the chart sets from other values: use these, and leave it out of env." .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
What Kubernetes would refuse in the middle of an upgrade: another selector, or other claims of a StatefulSet. Nothing is
found where there is no cluster (`helm template`), and at a first install.
*/}}
{{- define "keyrack.checkCluster" -}}
{{- $name := include "keyrack.fullname" . -}}
{{- $kind := ternary "Deployment" "StatefulSet" (eq (include "keyrack.valkey" .) "true") -}}
{{- $workload := lookup "apps/v1" $kind .Release.Namespace $name -}}
{{- if $workload -}}
{{- $labels := include "keyrack.serverLabels" . | fromYaml -}}
{{- if ne (toJson $workload.spec.selector.matchLabels) (toJson $labels) -}}
{{- fail (printf "the %s %s was made by another release, or with another nameOverride, and finds its pods by other labels, which cannot be changed: set nameOverride as it was, or another fullnameOverride." $kind $name) -}}
{{- end -}}
{{- if eq $kind "StatefulSet" -}}
{{- include "keyrack.checkClaims" (list . $workload) -}}
{{- end -}}
{{- end -}}
{{- if include "keyrack.claims" . -}}
{{- include "keyrack.checkClaim" . -}}
{{- end -}}
{{- end }}

{{- define "keyrack.checkClaims" -}}
{{- $root := index . 0 -}}
{{- $name := include "keyrack.fullname" $root -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $there := "" -}}
{{- range (index . 1).spec.volumeClaimTemplates -}}
{{- $there = include "keyrack.claimText" (list .spec.accessModes .spec.storageClassName .spec.resources.requests.storage (dig "metadata" "annotations" dict .)) -}}
{{- end -}}
{{- $wanted := "" -}}
{{- $values := $root.Values.persistence -}}
{{- if include "keyrack.claims" $root -}}
{{- $wanted = include "keyrack.claimText" (list $values.accessModes $values.storageClassName $values.size $values.annotations) -}}
{{- end -}}
{{- if ne $there $wanted -}}
{{- $grow := "" -}}
{{- if and $there $wanted -}}
{{- $grow = printf " A volume grows where its storage class allows it: kubectl --namespace %s patch pvc data-%s-0 --patch '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"%s\"}}}}', then as follows." $namespace $name $values.size -}}
{{- end -}}
{{- fail (printf "persistence: the StatefulSet %s has %s, and these values want %s. Kubernetes cannot change that.%s To do it without ending the pod: kubectl --namespace %s delete statefulset %s --cascade=orphan, then this upgrade again." $name ($there | default "no volume") ($wanted | default "none") $grow $namespace $name) -}}
{{- end -}}
{{- end }}

{{/* What a claim asks for, as one text: `list accessModes storageClassName size annotations` */}}
{{- define "keyrack.claimText" -}}
{{- $annotations := index . 3 -}}
a volume of {{ index . 2 }} ({{ join ", " (index . 0) }}, {{ with index . 1 }}storage class {{ . }}{{ else }}the default storage class{{ end }}{{ if $annotations }}, annotations {{ toJson $annotations }}{{ end }})
{{- end }}

{{- define "keyrack.checkClaim" -}}
{{- $name := printf "data-%s-0" (include "keyrack.fullname" .) -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace $name -}}
{{- if $claim -}}
{{- $size := $claim.spec.resources.requests.storage -}}
{{- $wanted := .Values.persistence.size -}}
{{- if and (regexMatch "^[0-9]+(Mi|Gi)$" $size) (lt (include "keyrack.mebibytes" $size | int64) (include "keyrack.mebibytes" $wanted | int64)) -}}
{{- fail (printf "persistence.size: %s is more than the claim %s asks for, %s, and it would stay so. Let it grow first, where its storage class allows it: kubectl --namespace %s patch pvc %s --patch '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"%s\"}}}}'" $wanted $name $size .Release.Namespace $name $wanted) -}}
{{- end -}}
{{- end -}}
{{- end }}
