{{- define "carbon-sched.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "carbon-sched.fullname" -}}
{{- $name := include "carbon-sched.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "carbon-sched.selector" -}}
app.kubernetes.io/name: {{ include "carbon-sched.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "carbon-sched.labels" -}}
{{ include "carbon-sched.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "carbon-sched.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "carbon-sched.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "carbon-sched.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* https where the servers speak it themselves */}}
{{- define "carbon-sched.scheme" -}}
{{ if .Values.tls.existingSecret }}https{{ else }}http{{ end }}
{{- end }}

{{/* The security context of every container but the meter's: Pod Security "restricted", and a read-only root. */}}
{{- define "carbon-sched.restricted" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The clusters as the server reads them: one with `kubernetes` and no address is the one that this release is on. */}}
{{- define "carbon-sched.clusters" -}}
{{- $account := "/var/run/secrets/kubernetes.io/serviceaccount" }}
{{- $here := dict "address" "https://kubernetes.default.svc" "token" (printf "file:%s/token" $account) "ca_file" (printf "%s/ca.crt" $account) }}
{{- $clusters := deepCopy .Values.clusters }}
{{- range $name, $cluster := $clusters }}
{{- if and (hasKey $cluster "kubernetes") (not $cluster.address) }}
{{- $_ := set $clusters $name (merge $cluster $here (dict "kubernetes" (dict "namespaces" $.Values.kubeRay.namespaces))) }}
{{- end }}
{{- end }}
{{- toYaml $clusters }}
{{- end }}

{{/* What no schema can say in words of its own: values that must be given together. */}}
{{- define "carbon-sched.check" -}}
{{- with .Values }}
{{- if not .token.existingSecret }}
{{- fail "token.existingSecret: '' names no Secret. Make one: kubectl create secret generic carbon-sched-token --from-literal=token=$(openssl rand -hex 32)" }}
{{- end }}
{{- if and (gt (int .replicaCount) 1) (not .database.existingSecret) }}
{{- fail (printf "replicaCount: %d servers cannot share one SQLite file. Name a Secret with a postgresql:// URL in database.existingSecret, or use replicaCount: 1" (int .replicaCount)) }}
{{- end }}
{{- if and (gt (int .replicaCount) 1) (not .shared.existingClaim) }}
{{- fail (printf "shared.existingClaim: '' names no claim, and %d servers need one that all can write. Name a ReadWriteMany claim, or use replicaCount: 1" (int .replicaCount)) }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.hosts) }}
{{- fail "ingress.hosts: [] names no host. Name one, or use ingress.enabled: false" }}
{{- end }}
{{- if and .metrics.serviceMonitor.enabled (not .metrics.serviceMonitor.tokenSecret.name) }}
{{- fail "metrics.serviceMonitor.tokenSecret.name: '' names no Secret, and /metrics asks for a token. Make one: carbon-sched token create prometheus --role viewer" }}
{{- end }}
{{- if and (not .serviceAccount.create) (not .serviceAccount.name) }}
{{- fail "serviceAccount.name: '' names no account. Name one, or use serviceAccount.create: true" }}
{{- end }}
{{- $kubeRay := .kubeRay }}
{{- range $name, $cluster := .clusters }}
{{- if and (not $cluster.address) (not (hasKey $cluster "kubernetes")) }}
{{- fail (printf "clusters.%s.address: '' names no Ray dashboard. Give one, or kubernetes: {} for the Kubernetes cluster that this release is on" $name) }}
{{- end }}
{{- if and (hasKey $cluster "kubernetes") (not $cluster.pools) }}
{{- fail (printf "clusters.%s.pools: [] names no nodes, and Kubernetes is not asked for them. List those that RayJobs may use, such as {name: gpu, node_resources: {CPU: 32, GPU: 8}, max_nodes: 4, node_lifetime: on-demand}" $name) }}
{{- end }}
{{- if and (hasKey $cluster "kubernetes") (not $cluster.address) }}
{{- if not $kubeRay.enabled }}
{{- fail (printf "kubeRay.enabled: false gives the servers no account here, and clusters.%s needs one. Use kubeRay.enabled: true, or give the address and token of another Kubernetes cluster" $name) }}
{{- end }}
{{- range concat ($cluster.kubernetes.namespaces | default list) ($cluster.kubernetes.create_in | default list) }}
{{- if and $kubeRay.namespaces (not (has . $kubeRay.namespaces)) }}
{{- fail (printf "clusters.%s.kubernetes: namespace %s is not among kubeRay.namespaces, where the servers have their role. Name it there too" $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $homes := list }}
{{- range $name, $cluster := .clusters }}{{ if $cluster.home }}{{ $homes = append $homes $name }}{{ end }}{{ end }}
{{- if gt (len $homes) 1 }}
{{- fail (printf "clusters: %s are all home. Leave `home: true` at the one where jobs would run without carbon-sched" (join " and " $homes)) }}
{{- end }}
{{- end }}
{{- end }}
