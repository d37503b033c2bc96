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
		"mode":      ": every service runs spec.replicas replicas",
		"virtualIP": ": the leader chooses it", "dns": "", "dnsConfig": "", "dnsPolicy": "", "hostAliases": "",
		"sessionAffinityConfig": ": a client is remembered for 3h", "publishNotReadyAddresses": "", "externalIPs": "", "loadBalancerIP": "",
		"ipFamilies": ": addresses are IPv4", "ipFamilyPolicy": ": addresses are IPv4",
		"initContainers": "", "sidecars": "", "volumes": "", "configs": "", "secrets": "",
		"securityContext": "", "sysctls": "", "imagePullSecrets": "", "maintenance": "",
		"spread":      ": replicas are spread over nodes by themselves",
		"tolerations": ": use nodeSelector or constraints", "affinity": ": use constraints",
		"autoscale": "", "schedule": "",
	},
	reflect.TypeFor[api.Rollout](): {
		"order": ": it follows from maxSurge and maxUnavailable", "minReady": "", "progressDeadline": "",
		"canary": "", "steps": "", "pause": "", "paused": "", "strategy": ": replicas are replaced by maxSurge and maxUnavailable",
		"recreate": ": maxSurge: 0 with maxUnavailable: 100% comes near", "rollback": "", "autoRollback": "",
	},
	reflect.TypeFor[api.Container](): {
		"startupProbe": ": use readinessProbe, or livenessProbe with initialDelay", "volumeMounts": "", "volumes": "", "mounts": "", "tmpfs": "",
		"securityContext": "", "user": "", "group": "", "privileged": "", "capabilities": "", "readOnly": "", "readOnlyRootFilesystem": "",
		"seccomp": "", "sysctls": "", "ulimits": "",
		"lifecycle": "", "stopSignal": ": SIGTERM is sent", "envFrom": ": list the variables in env",
		"imagePullPolicy": "", "pullPolicy": "", "configs": "", "secrets": "",
		"stdin": ": use orchctl exec -i", "tty": ": use orchctl exec -t", "sidecar": "", "restartPolicy": ": it stands in spec, for all containers",
	},
	reflect.TypeFor[api.EnvVar](): {"valueFrom": ": give a value"},
	reflect.TypeFor[api.Probe]():  {"grpc": ": use http, tcp or exec"},
	reflect.TypeFor[api.HTTPProbe](): {
		"headers": "", "httpHeaders": "", "host": "", "scheme": "",
	},
	reflect.TypeFor[api.Port](): {"hostIP": "", "address": ""},
}

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
		"strategy":                      `use "rollout"`,
		"updateStrategy":                `use "rollout"`,
		"ports":                         "ports stand in spec.containers[]",
		"image":                         "it stands in spec.containers[]",
		"terminationGracePeriodSeconds": `use "terminationGracePeriod" with a unit, such as 10s`,
	},
	reflect.TypeFor[api.Container](): {
		"environment": `use "env"`,
		"entrypoint":  `use "command"`,
	},
	reflect.TypeFor[api.Port](): {
		"containerPort":   `use "port"`,
		"hostPort":        `use "publish", with mode: host for the replica's own node only`,
		"nodePort":        `use "publish"`,
		"sessionAffinity": "it stands in spec, for all ports",
		"targetPort":      `use "port" for the container's, "publish" for the node's`,
	},
	reflect.TypeFor[api.Probe](): {
		"httpGet":             `use "http"`,
		"tcpSocket":           `use "tcp"`,
		"periodSeconds":       `use "interval" with a unit, such as 5s`,
		"timeoutSeconds":      `use "timeout" with a unit, such as 1s`,
		"initialDelaySeconds": `use "initialDelay" with a unit, such as 5s`,
	},
}
