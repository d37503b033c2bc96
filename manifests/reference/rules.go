package main

import "github.com/orchctl/orch/api"

// What validation asks of single fields, as the api package has it: patterns and ranges are
// not to be read off its types. The tests hold both against the same manifests.

const (
	namePattern     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	labelPattern    = `^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
	keyPattern      = `^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	durationPattern = `^(0|\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`
	quantityPattern = `^([0-9]+\.?[0-9]*|\.[0-9]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$`
	imagePattern    = `^([A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]{1,5})?/|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))?$`
	variablePattern = `^[-._A-Za-z][-._A-Za-z0-9]*$`
	valueKeyPattern = `^[-._A-Za-z0-9]+$`
)

var portNumber = object{"type": "integer", "minimum": 1, "maximum": api.MaxPort}

func named(most int) object { return object{"pattern": namePattern, "maxLength": most} }

func between(least, most int) object { return object{"minimum": least, "maximum": most} }

// nameOrNone is a name that may be empty, which is as good as left out.
func nameOrNone(most int) object {
	return object{"pattern": `^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`, "maxLength": most}
}

var (
	labels     = object{"propertyNames": object{"pattern": keyPattern}, "additionalProperties": object{"type": "string", "pattern": labelPattern, "maxLength": 63}}
	program    = object{"minItems": 1}
	threshold  = between(0, api.MaxThreshold)
	valueNames = object{"pattern": valueKeyPattern, "maxLength": api.MaxConfigKey}
)

// rules are what is asked of a field ("Port.port") beside its form, or of a map's type.
var rules = map[string]object{
	"Metadata.name":      named(api.MaxNamespaceName),
	"Metadata.namespace": nameOrNone(api.MaxNamespaceName),
	"Metadata.labels":    labels,

	"ServiceSpec.replicas": between(0, api.MaxReplicas),
	"ServiceSpec.priority": between(-api.MaxPriority, api.MaxPriority),
	"JobSpec.completions":  between(1, api.MaxCompletions),
	"JobSpec.parallelism":  between(1, api.MaxParallelism),
	"JobSpec.backoffLimit": between(0, api.MaxBackoffLimit),
	"JobSpec.priority":     between(-api.MaxPriority, api.MaxPriority),

	"Template.containers":     {"minItems": 1, "maxItems": api.MaxContainers},
	"Template.initContainers": {"maxItems": api.MaxContainers, "items": without(initHasNo)},
	"Template.sidecars":       {"maxItems": api.MaxContainers},
	"Template.pullSecrets":    {"maxItems": api.MaxPullSecrets, "items": named(api.MaxConfigName)},
	"Template.nodeSelector":   labels,
	"Template.sysctls":        {"propertyNames": object{"pattern": `^[a-z][-a-z0-9_]*(\.[-A-Za-z0-9_]+)+$`}},

	"Container.name":       named(api.MaxContainerName),
	"Container.image":      {"pattern": imagePattern, "maxLength": 511},
	"Container.command":    program,
	"Container.workingDir": {"pattern": `^(/.*)?$`},
	"EnvVar.name":          {"pattern": variablePattern},
	"EnvFrom.config":       nameOrNone(api.MaxConfigName),
	"EnvFrom.secret":       nameOrNone(api.MaxConfigName),
	"EnvSource.field":      {"pattern": `^(name|slot|epoch|revision|service|namespace|node|ip|labels\..+)?$`},
	"KeyRef.name":          named(api.MaxConfigName),
	"KeyRef.key":           valueNames,

	"Port.port":         portNumber,
	"Port.publish":      between(0, api.MaxPort),
	"Port.name":         nameOrNone(api.MaxPortName),
	"ResourceList":      {"propertyNames": object{"pattern": keyPattern, "not": object{"enum": []string{"cpus", "CPU", "cores", "core", "vcpu", "mem", "ram", "Memory", "pid", "process", "processes"}}}},
	"Ulimit.soft":       {"minimum": -1},
	"Ulimit.hard":       {"minimum": -1},
	"Mount.path":        {"pattern": `^/.+$`},
	"Mount.bind":        {"pattern": `^(/.*)?$`},
	"Mount.config":      nameOrNone(api.MaxConfigName),
	"Mount.secret":      nameOrNone(api.MaxConfigName),
	"Mount.volume":      nameOrNone(api.MaxVolumeName),
	"Mount.mode":        {"pattern": `^(0?[0-7]{3})?$`},
	"Config.data":       {"propertyNames": valueNames},
	"Config.binaryData": {"propertyNames": valueNames},

	"Probe.failureThreshold": threshold,
	"Probe.successThreshold": threshold,
	"HTTPProbe.path":         {"pattern": `^(/[!-~]*)?$`},
	"GRPCProbe.service":      {"pattern": `^([A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?$`},
	"ExecProbe.command":      program,
	"Rollout.canary":         {"maxItems": api.MaxCanarySteps},
}

// wholes are what is asked of a struct as a whole.
var wholes = map[string]object{
	"Metadata":  {"dependentRequired": object{"generation": []string{"uid"}, "createdAt": []string{"uid"}, "deletedAt": []string{"uid"}}},
	"Probe":     {"oneOf": eachAlone("http", "tcp", "grpc", "exec")},
	"Hook":      {"oneOf": eachAlone("exec", "http", "sleep")},
	"Mount":     {"oneOf": eachAlone("tmpfs", "bind", "config", "secret", "volume")},
	"EnvFrom":   {"oneOf": eachAlone("config", "secret")},
	"EnvSource": {"oneOf": eachAlone("field", "config", "secret")},
	"EnvVar":    {"not": object{"required": []string{"value", "valueFrom"}}},
}

// eachAlone are the choices of exactly one of several fields.
func eachAlone(fields ...string) []any {
	var out []any
	for _, f := range fields {
		out = append(out, object{"required": []string{f}})
	}
	return out
}
