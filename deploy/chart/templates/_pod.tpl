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
  # The drain, what requests under way may take, and what the supervisor needs to end the rest.
  terminationGracePeriodSeconds: {{ add .Values.drainSeconds (ceil .Values.settings.shutdownTimeout) 5 }}
  {{- if include "keyrack.valkey" . }}
  initContainers:
    {{- include "keyrack.engineGuard" . | nindent 4 }}
  {{- end }}
  containers:
    - name: keyrack
      image: {{ include "keyrack.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [keyrack]
      args: [serve]
      env:
        {{- include "keyrack.environment" . | nindent 8 }}
      {{- with .Values.existingSecret }}
      envFrom:
        - secretRef:
            name: {{ . }}
      {{- end }}
      ports:
        - name: http
          containerPort: 8088
          protocol: TCP
      {{- include "keyrack.probes" . | nindent 6 }}
      {{- if gt (int64 .Values.drainSeconds) 0 }}
      lifecycle:
        preStop:
          {{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}
          sleep:
            seconds: {{ .Values.drainSeconds }}
          {{- else }}
          exec:
            command: [sleep, {{ .Values.drainSeconds | quote }}]
          {{- end }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "keyrack.containerSecurityContext" . | nindent 8 }}
      # A service that could not start says why in its last line; this shows it in the pod's state.
      terminationMessagePolicy: FallbackToLogsOnError
      {{- if not (include "keyrack.valkey" .) }}
      volumeMounts:
        - name: store
          mountPath: /var/lib/keyrack
        {{- if .Values.persistence.enabled }}
        - name: data
          mountPath: /var/lib/keyrack-data
        {{- end }}
      {{- end }}
  {{- if not (include "keyrack.valkey" .) }}
  volumes:
    - name: store
      emptyDir:
        medium: Memory
        # The store's limit and room for its small files. It counts as the container's memory.
        sizeLimit: {{ add (include "keyrack.mebibytes" .Values.memory) 8 }}Mi
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
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
- name: KEYRACK_ENGINE
  valueFrom:
    secretKeyRef:
      name: {{ .Values.valkey.existingSecret | default (printf "%s-valkey" (include "keyrack.fullname" .)) }}
      key: {{ ternary .Values.valkey.existingSecretKey "url" (ne .Values.valkey.existingSecret "") }}
{{- else -}}
# A store with a name survives a container that is restarted, for as long as the pod lives. One
# level below the volume, whose top may hold a lost+found and belongs to root.
- name: KEYRACK_STORE
  value: /var/lib/keyrack/store
{{- if .Values.persistence.enabled }}
- name: KEYRACK_DURABILITY
  value: {{ .Values.persistence.durability }}
- name: KEYRACK_DATA_DIR
  value: /var/lib/keyrack-data/data
- name: KEYRACK_SNAPSHOT_INTERVAL
  value: {{ .Values.persistence.snapshotInterval | quote }}
- name: KEYRACK_SNAPSHOT_KEEP
  value: {{ .Values.persistence.snapshotKeep | quote }}
{{- end }}
- name: KEYRACK_MEMORY
  value: {{ include "keyrack.mebibytes" .Values.memory }}m
{{- end }}
- name: KEYRACK_PORT
  value: "8088"
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

{{/* A browser may only use names that the service knows; the Ingress' are among them. */}}
{{- define "keyrack.allowedHosts" -}}
{{- $hosts := .Values.settings.allowedHosts -}}
{{- if .Values.ingress.enabled -}}
{{- range .Values.ingress.hosts -}}
{{- $hosts = append $hosts (trimPrefix "*" .) -}}
{{- end -}}
{{- end -}}
{{ $hosts | uniq | join "," }}
{{- end }}

{{- define "keyrack.probes" -}}
# Generous: it is cheap, and a pod that starts late on a busy node should not be started again.
startupProbe:
  httpGet:
    path: /healthz
    port: http
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 120
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  httpGet:
    path: /healthz
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/*
A release without the Valkey engine only warns about KEYRACK_ENGINE, and each pod would keep a store
of its own behind one Service: keys would come and go. So the pod asks the image first.
*/}}
{{- define "keyrack.engineGuard" -}}
- name: engine
  image: {{ include "keyrack.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - sh
    - -c
    - |
      keyrack serve --help | grep -q -e --engine && exit
      echo "This image has no Valkey engine. Set image.tag to a release that has it, or empty valkey.url." >&2
      exit 1
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    {{- include "keyrack.containerSecurityContext" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
{{- end }}
