package manifests

import (
	"reflect"

	"github.com/orchctl/orch/api"
)

// A field or kind of a later feature is refused by name: never accepted and
// ignored, and never called a spelling mistake, even where the api type has it
// already. When a feature is built, its lines go from here. The text is put behind
// "is not yet supported".

var laterKinds = map[string]string{
	"CronJob":   ": apply a Job from a timer of your own",
	"Namespace": ": a namespace exists as soon as something names it",
	"Ingress":   ": publish a port",
}

var laterFields = map[reflect.Type]map[string]string{
	reflect.TypeFor[api.ServiceSpec](): {
		"virtualIP": ": the leader chooses it", "dns": "", "dnsConfig": "", "dnsPolicy": "", "hostAliases": "",
		"sessionAffinityConfig": ": a client is remembered for 3h", "publishNotReadyAddresses": "", "externalIPs": "", "loadBalancerIP": "",
		"ipFamilies": ": addresses are IPv4", "ipFamilyPolicy": ": addresses are IPv4",
		"maintenance": "", "spread": laterSpread, "topologySpreadConstraints": laterSpread,
		"tolerations": ": use nodeSelector or constraints", "affinity": ": use constraints",
		"autoscale": "", "schedule": "", "hostPID": "", "hostIPC": "", "shareProcessNamespace": "",
	},
	reflect.TypeFor[api.JobSpec](): {
		"dns": "", "dnsConfig": "", "dnsPolicy": "", "hostAliases": "", "suspend": ": delete the job, or set parallelism lower",
		"schedule": ": apply the job from a timer of your own", "podFailurePolicy": "", "backoffLimitPerIndex": ": backoffLimit counts over all indexes",
		"maxFailedIndexes": "", "successPolicy": "", "tolerations": ": use nodeSelector or constraints", "affinity": ": use constraints",
		"hostPID": "", "hostIPC": "", "shareProcessNamespace": "",
	},
	reflect.TypeFor[api.Container](): {
		"devices": ": a privileged container has all", "volumeDevices": "", "tty": ": orchctl run -t and orchctl exec -t bring a terminal with them",
		"restartPolicy": ": it stands in spec, for all containers", "restart": ": restartPolicy stands in spec, for all containers",
	},
	reflect.TypeFor[api.SecurityContext](): {
		"seLinuxOptions": "", "appArmorProfile": "", "windowsOptions": "", "procMount": "", "fsGroup": "",
	},
	reflect.TypeFor[api.Mount](): {
		"subPath": laterSubPath, "subPathExpr": laterSubPath, "mountPropagation": "", "optional": laterOptional,
		"projected": ": mount each Config and Secret at a path of its own",
	},
	reflect.TypeFor[api.Tmpfs]():     {"mode": "", "inodes": ""},
	reflect.TypeFor[api.EnvSource](): {"resourceFieldRef": "", "optional": laterOptional},
	reflect.TypeFor[api.EnvFrom]():   {"optional": laterOptional},
	reflect.TypeFor[api.KeyRef]():    {"optional": laterOptional},
	reflect.TypeFor[api.HTTPProbe](): {
		"headers": "", "httpHeaders": "", "host": "", "scheme": "",
	},
	reflect.TypeFor[api.Port](): {"hostIP": "", "address": ""},
}

const (
	laterOptional = ": what a container takes has to be there; an empty Config will do"
	laterSubPath  = ": of a Config or Secret take one value with key; of a volume all is mounted"
	laterSpread   = ": replicas are spread over nodes by themselves"
)

// otherNames are fields as other systems call them, with ours.
var otherNames = map[reflect.Type]map[string]string{
	reflect.TypeFor[api.Config](): {
		"stringData": `use "data", whose values are plain text here; base64 stands in binaryData`,
		"values":     `use "data"`,
		"spec":       "data stands at the document's top level",
		"immutable":  "every version is, and a change is a new one: remove it",
	},
	reflect.TypeFor[api.JobSpec](): {
		"imagePullSecrets":              pullSecretNames,
		"pull_secrets":                  pullSecretNames,
		"imagePullPolicy":               pullPolicyPlace,
		"pullPolicy":                    pullPolicyPlace,
		"template":                      "here containers stand directly in spec",
		"image":                         "it stands in spec.containers[]",
		"command":                       "it stands in spec.containers[]",
		"env":                           "it stands in spec.containers[]",
		"activeDeadlineSeconds":         `use "deadline" with a unit, such as 10m`,
		"activeDeadline":                `use "deadline"`,
		"timeout":                       `use "deadline"`,
		"ttlSecondsAfterFinished":       `use "ttlAfterFinished" with a unit, such as 1h`,
		"ttl":                           `use "ttlAfterFinished"`,
		"retries":                       `use "backoffLimit"`,
		"completionMode":                "every completion has an index here, which valueFrom: {field: slot} gives: remove it",
		"selector":                      "a job finds its replicas by itself: remove it",
		"manualSelector":                "a job finds its replicas by itself: remove it",
		"replicas":                      `use "completions", and "parallelism" for how many run at once`,
		"mode":                          onlyServices,
		"rollout":                       "the template of a job never changes, so that there are no rollouts: remove it",
		"headless":                      onlyServices,
		"sessionAffinity":               onlyServices,
		"trafficDistribution":           onlyServices,
		"volumes":                       inMounts,
		"volumeClaimTemplates":          inMounts,
		"configs":                       inMounts,
		"secrets":                       inMounts,
		"securityContext":               "it stands in spec.containers[]; of the replica as a whole there are sysctls in spec",
		"terminationGracePeriodSeconds": `use "terminationGracePeriod" with a unit, such as 10s`,
	},
	reflect.TypeFor[api.EnvFrom](): {
		"configMapRef": `use "config" with the name directly behind it`,
		"configMap":    `use "config"`,
		"secretRef":    `use "secret" with the name directly behind it`,
		"name":         "the name stands directly behind config or secret",
	},
	reflect.TypeFor[api.ServiceSpec](): {
		"imagePullSecrets":              pullSecretNames,
		"pull_secrets":                  pullSecretNames,
		"imagePullPolicy":               pullPolicyPlace,
		"pullPolicy":                    pullPolicyPlace,
		"volumes":                       inMounts,
		"volumeClaimTemplates":          "write volume: NAME in a container's mounts: each slot has its own: remove it",
		"configs":                       inMounts,
		"secrets":                       inMounts,
		"completions":                   onlyJobs,
		"parallelism":                   onlyJobs,
		"backoffLimit":                  onlyJobs,
		"deadline":                      onlyJobs,
		"ttlAfterFinished":              onlyJobs,
		"template":                      "here containers stand directly in spec",
		"preferLocal":                   `use "trafficDistribution" with preferSameNode`,
		"internalTrafficPolicy":         `use "trafficDistribution" with preferSameNode`,
		"externalTrafficPolicy":         "a port with mode: host is reachable on the replica's own node only",
		"type":                          "every service that is not headless has a virtual IP, and publish opens a port on the nodes: remove it",
		"networkMode":                   `use "hostNetwork"`,
		"clusterIP":                     `the leader gives a virtual IP; for none use "headless"`,
		"selector":                      "a service finds its replicas by itself: remove it",
		"strategy":                      `use "rollout", with strategy: rolling or recreate in it`,
		"updateStrategy":                `use "rollout", with strategy: rolling or recreate in it`,
		"update_config":                 `use "rollout"`,
		"minReadySeconds":               "it is rollout.minReady here, with a unit, such as 10s",
		"progressDeadlineSeconds":       "it is rollout.progressDeadline here, with a unit, such as 10m",
		"revisionHistoryLimit":          "orch keeps the newest revisions by itself: remove it",
		"paused":                        "say orchctl rollout pause instead",
		"ports":                         "ports stand in spec.containers[]",
		"image":                         "it stands in spec.containers[]",
		"securityContext":               "it stands in spec.containers[]; of the replica as a whole there are sysctls in spec",
		"terminationGracePeriodSeconds": `use "terminationGracePeriod" with a unit, such as 10s`,
		"stop_grace_period":             `use "terminationGracePeriod" with a unit, such as 10s`,
	},
	reflect.TypeFor[api.Rollout](): {
		"type":                    `use "strategy", which is rolling or recreate`,
		"recreate":                `use "strategy" with recreate`,
		"rollingUpdate":           "its fields stand directly in rollout",
		"minReadySeconds":         `use "minReady" with a unit, such as 10s`,
		"monitor":                 `use "minReady"`,
		"delay":                   `use "minReady"`,
		"parallelism":             `use "maxUnavailable"`,
		"progressDeadlineSeconds": `use "progressDeadline" with a unit, such as 10m`,
		"steps":                   `use "canary"`,
		"pause":                   "say orchctl rollout pause instead, or give a step of canary a pause",
		"paused":                  "say orchctl rollout pause instead, or give a step of canary a pause",
		"rollback":                `use "autoRollback", which is true or false`,
		"failure_action":          `use "autoRollback", which is true or false`,
	},
	reflect.TypeFor[api.CanaryStep](): {
		"weight":    `use "replicas" with a share, such as 25%`,
		"setWeight": `use "replicas" with a share, such as 25%`,
		"duration":  `use "pause"`,
	},
	reflect.TypeFor[api.Container](): {
		"imagePullPolicy":        `use "pullPolicy", which is ifNotPresent, always or never`,
		"pull_policy":            `use "pullPolicy", which is ifNotPresent (missing), always or never`,
		"imagePullSecrets":       "it is pullSecrets in spec, for all containers",
		"pullSecrets":            "it stands in spec, for all containers",
		"environment":            `use "env"`,
		"env_file":               `use "envFrom" with a config`,
		"volumes":                `use "mounts", with path and volume, or with bind for a path of the node`,
		"configs":                `use "mounts", with path and config; for variables there is envFrom`,
		"secrets":                `use "mounts", with path and secret; for variables there is envFrom`,
		"stdin_open":             `use "stdin", in a job`,
		"stdinOnce":              "who attached to a container is the only one: remove it",
		"entrypoint":             `use "command"`,
		"healthcheck":            `use "readinessProbe" or "livenessProbe"; without any the image's HEALTHCHECK counts`,
		"stop_signal":            `use "stopSignal"`,
		"volumeMounts":           `use "mounts", with path and one of volume, config, secret, tmpfs and bind`,
		"tmpfs":                  `use "mounts", with path and tmpfs: {}`,
		"shm_size":               `use "mounts", with path: /dev/shm and tmpfs: {size: 64Mi}`,
		"sidecar":                "list it in spec.sidecars",
		"init":                   "list it in spec.initContainers",
		"sysctls":                "they stand in spec, for all containers of a replica",
		"user":                   inSecurity + "user",
		"group":                  inSecurity + "group",
		"privileged":             inSecurity + "privileged",
		"capabilities":           inSecurity + "capabilities",
		"cap_add":                inSecurity + "capabilities.add",
		"cap_drop":               inSecurity + "capabilities.drop",
		"readOnly":               inSecurity + "readOnlyRoot",
		"read_only":              inSecurity + "readOnlyRoot",
		"readOnlyRootFilesystem": inSecurity + "readOnlyRoot",
		"seccomp":                inSecurity + "seccomp",
		"security_opt":           inSecurity + "seccomp or securityContext.allowPrivilegeEscalation",
		"stop_grace_period":      "it is spec.terminationGracePeriod here",
		"terminationGracePeriod": "it stands in spec, for all containers",
	},
	reflect.TypeFor[api.SecurityContext](): {
		"runAsUser":              `use "user"`,
		"runAsGroup":             `use "group"`,
		"runAsNonRoot":           `use "user" with another than 0`,
		"readOnlyRootFilesystem": `use "readOnlyRoot"`,
		"seccompProfile":         `use "seccomp" with default or unconfined`,
		"noNewPrivileges":        `use "allowPrivilegeEscalation", which is false by itself`,
		"supplementalGroups":     "a user's further groups are those of the image's /etc/group",
		"sysctls":                "they stand in spec, for all containers of a replica",
	},
	reflect.TypeFor[api.Hook](): {
		"httpGet":   `use "http"`,
		"command":   `use "exec" with the command in it`,
		"tcpSocket": "want exec, http or sleep",
		"seconds":   `use "sleep" with a unit, such as 5s`,
	},
	reflect.TypeFor[api.Mount](): {
		"mountPath":             `use "path"`,
		"target":                `use "path"`,
		"hostPath":              `use "bind"`,
		"source":                `use "volume", or "bind" for a path of the node`,
		"emptyDir":              `use "tmpfs"`,
		"type":                  "what is mounted says it: one of volume, config, secret, tmpfs and bind",
		"name":                  "mounts have no names: what is mounted is named by volume, config or secret",
		"read_only":             `use "readOnly"`,
		"configMap":             `use "config" with the name directly behind it`,
		"secretName":            `use "secret"`,
		"persistentVolumeClaim": `use "volume" with a name of your choice: each slot has its own`,
		"claimName":             `use "volume"`,
		"items":                 `use "key" for one file; without it each key is a file of that name`,
		"defaultMode":           `use "mode" with octal digits in quotes, such as "0400"`,
		"uid":                   "files belong to the container's user: remove it",
		"gid":                   "files belong to the container's user: remove it",
	},
	reflect.TypeFor[api.Tmpfs](): {
		"sizeLimit": `use "size"`,
		"sizeBytes": `use "size"`,
		"medium":    "a tmpfs is always in memory: remove it",
	},
	reflect.TypeFor[api.EnvSource](): {
		"fieldRef":        `use "field" with the field's name directly behind it`,
		"fieldPath":       `use "field"`,
		"configMapKeyRef": `use "config", with name and key`,
		"secretKeyRef":    `use "secret", with name and key`,
	},
	reflect.TypeFor[api.Port](): {
		"containerPort":   `use "port"`,
		"hostPort":        `use "publish", with mode: host for the replica's own node only`,
		"nodePort":        `use "publish"`,
		"sessionAffinity": "it stands in spec, for all ports",
		"targetPort":      `use "port" for the container's, "publish" for the node's`,
	},
	reflect.TypeFor[api.Probe](): {
		"httpGet":                       `use "http"`,
		"tcpSocket":                     `use "tcp"`,
		"test":                          `use "exec" with the command in it`,
		"command":                       `use "exec" with the command in it`,
		"retries":                       `use "failureThreshold"`,
		"start_period":                  `use "initialDelay", or a startupProbe`,
		"startPeriod":                   `use "initialDelay", or a startupProbe`,
		"periodSeconds":                 `use "interval" with a unit, such as 5s`,
		"timeoutSeconds":                `use "timeout" with a unit, such as 1s`,
		"initialDelaySeconds":           `use "initialDelay" with a unit, such as 5s`,
		"terminationGracePeriodSeconds": "it is spec.terminationGracePeriod here, for all ends of a container",
	},
}

const (
	inSecurity   = "it is securityContext."
	inMounts     = "a container's mounts name what they take, as {path: /data, volume: data}: remove it"
	onlyJobs     = "it is for jobs: write kind: Job, or remove it"
	onlyServices = "it is for services: remove it"

	pullSecretNames = `use "pullSecrets" with the names alone, as [registry-login], of Secrets of type registry`
	pullPolicyPlace = "it is pullPolicy of each of spec.containers[]"
)

// otherKinds are kinds as other systems call them, with what they are here.
var otherKinds = map[string]string{
	"Deployment":            "write kind: Service",
	"ReplicaSet":            "write kind: Service",
	"ReplicationController": "write kind: Service",
	"StatefulSet":           "write kind: Service: its replicas have numbers, web-0 and so on",
	"DaemonSet":             "write kind: Service with mode: global in its spec",
	"Pod":                   "write kind: Service",
	"ConfigMap":             "write kind: Config",
	"PersistentVolumeClaim": "write volume: NAME in a container's mounts: each slot has its own folder",
	"PersistentVolume":      "write volume: NAME in a container's mounts: each slot has its own folder",
}

// foreignKinds are kinds that other systems have too, with what differs.
var foreignKinds = map[string]string{
	api.KindJob:    "a Job here has its containers directly under spec, with completions, parallelism, backoffLimit and deadline beside them (see manifests/examples/job.yaml)",
	api.KindSecret: "a Secret here has plain text in data, and base64 in binaryData (see manifests/examples/secret.yaml)",
}
