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
	"Job": "", "CronJob": "",
	"Config": ": put the values in env", "ConfigMap": ": put the values in env",
	"Secret": "", "Volume": "",
	"Namespace": ": a namespace exists as soon as something names it",
	"Ingress":   ": publish a port",
}

var laterFields = map[reflect.Type]map[string]string{
	reflect.TypeFor[api.ServiceSpec](): {
		"virtualIP": ": the leader chooses it", "dns": "", "dnsConfig": "", "dnsPolicy": "", "hostAliases": "",
		"sessionAffinityConfig": ": a client is remembered for 3h", "publishNotReadyAddresses": "", "externalIPs": "", "loadBalancerIP": "",
		"ipFamilies": ": addresses are IPv4", "ipFamilyPolicy": ": addresses are IPv4",
		"volumes": laterVolumes, "volumeClaimTemplates": laterVolumes, "configs": "", "secrets": "", "imagePullSecrets": "", "maintenance": "",
		"spread": laterSpread, "topologySpreadConstraints": laterSpread,
		"tolerations": ": use nodeSelector or constraints", "affinity": ": use constraints",
		"autoscale": "", "schedule": "", "hostPID": "", "hostIPC": "", "shareProcessNamespace": "",
	},
	reflect.TypeFor[api.Container](): {
		"volumes": laterVolumes, "envFrom": ": list the variables in env",
		"imagePullPolicy": laterPull, "pullPolicy": laterPull, "pull_policy": laterPull, "configs": "", "secrets": "",
		"devices": ": a privileged container has all", "volumeDevices": "", "stdin": ": use orchctl exec -i", "tty": ": use orchctl exec -t",
		"restartPolicy": ": it stands in spec, for all containers", "restart": ": restartPolicy stands in spec, for all containers",
	},
	reflect.TypeFor[api.SecurityContext](): {
		"seLinuxOptions": "", "appArmorProfile": "", "windowsOptions": "", "procMount": "", "fsGroup": "",
	},
	reflect.TypeFor[api.Mount]():     {"volume": laterVolumes, "subPath": "", "subPathExpr": "", "mountPropagation": "", "config": "", "secret": ""},
	reflect.TypeFor[api.Tmpfs]():     {"mode": "", "inodes": ""},
	reflect.TypeFor[api.EnvSource](): {"config": "", "configMapKeyRef": "", "secret": "", "secretKeyRef": "", "resourceFieldRef": ""},
	reflect.TypeFor[api.HTTPProbe](): {
		"headers": "", "httpHeaders": "", "host": "", "scheme": "",
	},
	reflect.TypeFor[api.Port](): {"hostIP": "", "address": ""},
}

const (
	laterVolumes = ": mounts takes a tmpfs, or a path of the node by bind"
	laterSpread  = ": replicas are spread over nodes by themselves"
	laterPull    = ": an image is pulled where it is missing, by the digest that its tag had when the revision was made"
)

// otherNames are fields as other systems call them, with ours.
var otherNames = map[reflect.Type]map[string]string{
	reflect.TypeFor[api.ServiceSpec](): {
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
		"environment":            `use "env"`,
		"entrypoint":             `use "command"`,
		"healthcheck":            `use "readinessProbe" or "livenessProbe"; without any the image's HEALTHCHECK counts`,
		"stop_signal":            `use "stopSignal"`,
		"volumeMounts":           `use "mounts", with a tmpfs or a bind`,
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
		"mountPath": `use "path"`,
		"target":    `use "path"`,
		"hostPath":  `use "bind"`,
		"source":    `use "bind"`,
		"emptyDir":  `use "tmpfs"`,
		"type":      "want tmpfs or bind",
		"name":      "mounts have no names",
		"read_only": `use "readOnly"`,
	},
	reflect.TypeFor[api.Tmpfs](): {
		"sizeLimit": `use "size"`,
		"sizeBytes": `use "size"`,
		"medium":    "a tmpfs is always in memory: remove it",
	},
	reflect.TypeFor[api.EnvSource](): {
		"fieldRef":  `use "field" with the field's name directly behind it`,
		"fieldPath": `use "field"`,
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

const inSecurity = "it is securityContext."

// otherKinds are kinds as other systems call them, with what they are here.
var otherKinds = map[string]string{
	"Deployment":            "write kind: Service",
	"ReplicaSet":            "write kind: Service",
	"ReplicationController": "write kind: Service",
	"StatefulSet":           "write kind: Service: its replicas have numbers, web-0 and so on",
	"DaemonSet":             "write kind: Service with mode: global in its spec",
	"Pod":                   "write kind: Service",
}
