{{/*
The pod that serves, which is the same in a StatefulSet and in a Deployment, and what it shares with
the test pod.
*/}}

{{- define "keyrack.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "keyrack.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "keyrack.template" -}}
{{- include "keyrack.check" . -}}
metadata:
  labels:
    {{- /* None that changes with the chart's version: it would restart the pod, which empties the store. */}}
    {{- merge (include "keyrack.serverLabels" . | fromYaml) .Values.podLabels | toYaml | nindent 4 }}
  {{- $annotations := deepCopy .Values.podAnnotations }}
  {{- if .Values.valkey.url }}
  {{- /* Another URL is another Secret, which the pods only read when they start. */}}
  {{- $annotations = set $annotations "checksum/valkey" (sha256sum .Values.valkey.url) }}
  {{- end }}
  {{- if not (or (include "keyrack.valkey" .) .Values.persistence.enabled) }}
  {{- /* Its store is in memory: what makes room on nodes must not move it (a drain by hand still does). */}}
  {{- $kept := dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" "karpenter.sh/do-not-disrupt" "true" }}
  {{- $annotations = merge $annotations $kept }}
  {{- end }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "keyrack.serviceAccountName" . }}
  automountServiceAccountToken: false
  # A service called keyrack would give the pods KEYRACK_PORT=tcp://...
  enableServiceLinks: false
  securityContext:
    {{- include "keyrack.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  # The drain, what requests under way may take, what the supervisor needs to end the rest, and a
  # last snapshot.
  terminationGracePeriodSeconds: {{ add (include "keyrack.drainSeconds" .) (ceil .Values.settings.shutdownTimeout) 5 (include "keyrack.savingSeconds" .) }}
  containers:
    - name: keyrack
      image: {{ include "keyrack.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [keyrack]
      args: [serve]
      env:
        {{- include "keyrack.environment" . | nindent 8 }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or .Values.existingSecret .Values.envFrom }}
      envFrom:
        {{- with .Values.existingSecret }}
        - secretRef:
            name: {{ . }}
        {{- end }}
        {{- with .Values.envFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8088
          protocol: TCP
      {{- include "keyrack.probes" . | nindent 6 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "keyrack.containerSecurityContext" . | nindent 8 }}
      # A service that could not start says why in its last line; this shows it in the pod's state.
      terminationMessagePolicy: FallbackToLogsOnError
      {{- with include "keyrack.mounts" . | trim }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "keyrack.volumes" . | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if include "keyrack.valkey" . }}
  {{- with .Values.valkey.topologyKeys }}
  topologySpreadConstraints:
    {{- range . }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "keyrack.serverLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "keyrack.environment" -}}
{{- if include "keyrack.valkey" . -}}
{{ include "keyrack.valkeyEnvironment" . }}
{{- else -}}
# A store with a name survives a container that is restarted, for as long as the pod lives.
- name: KEYRACK_STORE
  value: /var/lib/keyrack/store
- name: KEYRACK_MEMORY
  value: {{ include "keyrack.mebibytes" .Values.memory }}m
{{- if include "keyrack.durable" . }}
- name: KEYRACK_DURABILITY
  value: {{ .Values.persistence.durability }}
# One level below the volume, whose top may hold a lost+found and belongs to root.
- name: KEYRACK_DATA_DIR
  value: /var/lib/keyrack-data/keyrack
{{- end }}
{{- end }}
- name: KEYRACK_PORT
  value: "8088"
- name: KEYRACK_AUTH
  value: {{ ternary "/etc/keyrack/auth/auth.toml" "none" .Values.auth.enabled }}
# No preStop: whoever sleeps there keeps connections that are cut at the end. The server itself goes on serving,
# and has each answer close its connection.
- name: KEYRACK_DRAIN_DELAY
  value: {{ include "keyrack.drainSeconds" . | quote }}
- name: KEYRACK_WORKERS
  value: {{ .Values.workers | quote }}
{{- range $name, $value := omit .Values.settings "allowedHosts" }}
{{- with include "keyrack.text" $value }}
- name: KEYRACK_{{ snakecase $name | upper }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- with include "keyrack.allowedHosts" . }}
- name: KEYRACK_ALLOWED_HOSTS
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "keyrack.valkeyEnvironment" -}}
{{- $valkey := .Values.valkey -}}
- name: KEYRACK_ENGINE
  valueFrom:
    secretKeyRef:
      name: {{ $valkey.existingSecret | default (printf "%s-valkey" (include "keyrack.fullname" .)) }}
      key: {{ ternary $valkey.existingSecretKey "url" (ne $valkey.existingSecret "") }}
{{- with $valkey.auth.existingSecret }}
- name: KEYRACK_ENGINE_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $valkey.auth.existingSecretKey }}
{{- end }}
{{- if $valkey.tls.existingSecret }}
- name: KEYRACK_ENGINE_CA
  value: /etc/keyrack/valkey/ca.crt
{{- if $valkey.tls.clientCertificate }}
- name: KEYRACK_ENGINE_CERT
  value: /etc/keyrack/valkey/tls.crt
- name: KEYRACK_ENGINE_KEY
  value: /etc/keyrack/valkey/tls.key
{{- end }}
{{- end }}
- name: KEYRACK_VALKEY_WAIT
  value: {{ $valkey.wait | quote }}
- name: KEYRACK_VALKEY_MAY_EVICT
  value: {{ $valkey.mayEvict | quote }}
{{- end }}

{{/* The volume of a claim that the StatefulSet makes is its to add. */}}
{{- define "keyrack.volumes" -}}
{{- if and (include "keyrack.durable" .) .Values.persistence.existingClaim }}
- name: data
  persistentVolumeClaim:
    claimName: {{ .Values.persistence.existingClaim }}
{{- end }}
{{- if not (include "keyrack.valkey" .) }}
- name: store
  emptyDir:
    medium: Memory
    # The store's limit and room for its small files. It counts as the container's memory.
    sizeLimit: {{ add (include "keyrack.mebibytes" .Values.memory) 8 }}Mi
{{- else if .Values.valkey.tls.existingSecret }}
- name: valkey-tls
  secret:
    secretName: {{ .Values.valkey.tls.existingSecret }}
    defaultMode: 0440
    items:
      {{- range ternary (list "ca.crt" "tls.crt" "tls.key") (list "ca.crt") .Values.valkey.tls.clientCertificate }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- if .Values.auth.enabled }}
# Mounted whole: a single file of it (subPath) would never be updated.
- name: auth
  secret:
    secretName: {{ include "keyrack.authSecret" . }}
    defaultMode: 0440
    items:
      - key: auth.toml
        path: auth.toml
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "keyrack.mounts" -}}
{{- if not (include "keyrack.valkey" .) }}
- name: store
  mountPath: /var/lib/keyrack
{{- if include "keyrack.durable" . }}
- name: data
  mountPath: /var/lib/keyrack-data
{{- end }}
{{- else if .Values.valkey.tls.existingSecret }}
- name: valkey-tls
  mountPath: /etc/keyrack/valkey
  readOnly: true
{{- end }}
{{- if .Values.auth.enabled }}
- name: auth
  mountPath: /etc/keyrack/auth
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The Secret with auth.toml, and with the tokens of those who test and measure. */}}
{{- define "keyrack.authSecret" -}}
{{ .Values.auth.existingSecret | default (printf "%s-auth" (include "keyrack.fullname" .)) }}
{{- end }}

{{/*
How long a last snapshot, or filling the store from the volume, may take, in seconds: 16Mi and 2Mi of
`memory` a second. Measured with a million small keys on a machine with six times more to do than
cores: 56 MB and 7 MB a second; and a volume may be slow.
*/}}
{{- define "keyrack.savingSeconds" -}}
{{ ternary (div (add (include "keyrack.mebibytes" .Values.memory) 15) 16) 0 (eq (include "keyrack.durable" .) "true") }}
{{- end }}

{{- define "keyrack.loadingSeconds" -}}
{{ mul 8 (include "keyrack.savingSeconds" .) }}
{{- end }}

{{/* As soon as names are given, everybody has to use one of them: those of Ingress and HTTPRoute are added, and those by which pods call the Services. */}}
{{- define "keyrack.allowedHosts" -}}
{{- $hosts := .Values.settings.allowedHosts -}}
{{- if .Values.ingress.enabled -}}
{{- range .Values.ingress.hosts -}}
{{- $hosts = append $hosts (trimPrefix "*" .) -}}
{{- end -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
{{- range .Values.httpRoute.hostnames -}}
{{- $hosts = append $hosts (trimPrefix "*" .) -}}
{{- end -}}
{{- end -}}
{{- if $hosts -}}
{{- $name := include "keyrack.fullname" . -}}
{{- range list $name (printf "%s-headless" $name) -}}
{{- $hosts = concat $hosts (list . (printf "%s.%s" . $.Release.Namespace) (printf "%s.%s.svc" . $.Release.Namespace) (printf ".%s.%s.svc" . $.Release.Namespace) (printf "%s.%s.svc.cluster.local" . $.Release.Namespace) (printf ".%s.%s.svc.cluster.local" . $.Release.Namespace)) -}}
{{- end -}}
{{- end -}}
{{ $hosts | uniq | join "," }}
{{- end }}

{{- define "keyrack.probes" -}}
# Generous: it is cheap, and a pod that starts late on a busy node should not be started again. While
# the store is filled from a volume nobody answers.
startupProbe:
  httpGet:
    path: /healthz
    port: http
  periodSeconds: {{ .Values.startupProbe.periodSeconds }}
  timeoutSeconds: {{ .Values.startupProbe.timeoutSeconds }}
  failureThreshold: {{ .Values.startupProbe.failureThreshold | default (add 120 (include "keyrack.loadingSeconds" .)) | int64 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  # A look costs microseconds, and clients of a new pod wait for it.
  periodSeconds: {{ .Values.readinessProbe.periodSeconds }}
  timeoutSeconds: {{ .Values.readinessProbe.timeoutSeconds }}
  failureThreshold: {{ .Values.readinessProbe.failureThreshold }}
livenessProbe:
  httpGet:
    path: /healthz
    port: http
  periodSeconds: {{ .Values.livenessProbe.periodSeconds }}
  timeoutSeconds: {{ .Values.livenessProbe.timeoutSeconds }}
  failureThreshold: {{ .Values.livenessProbe.failureThreshold }}
{{- end }}
