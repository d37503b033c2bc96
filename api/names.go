package api

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The grammars below return "" for good text, else what is wrong with it and
// what would be right, to be put behind a field path.

var (
	dnsLabel  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	labelName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	envName   = regexp.MustCompile(`^[-._A-Za-z][-._A-Za-z0-9]*$`)
	hasLetter = regexp.MustCompile(`[a-z]`)
	imageHost = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	imagePart = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)
	imageTag  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	sha256Hex = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	sha512Hex = regexp.MustCompile(`^sha512:[0-9a-f]{128}$`)
	httpPath  = regexp.MustCompile(`^/[!-~]*$`)
	// grpcService is a full name of protobuf, or empty.
	grpcService = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?$`)
	maxRefName  = 255 // characters of an image name, as registries have it
)

// CheckName tells whether s can name something: a DNS label of at most max
// characters (MaxServiceName, MaxNamespaceName, ...).
func CheckName(s string, max int) error {
	if why := nameProblem(s, max); why != "" {
		return fmt.Errorf("%s", why)
	}
	return nil
}

// CheckLabel tells whether key and value can be a label.
func CheckLabel(key, value string) error {
	if why := labelKeyProblem(key); why != "" {
		return fmt.Errorf("label key %s", why)
	}
	if why := labelValueProblem(value); why != "" {
		return fmt.Errorf("label value %s", why)
	}
	return nil
}

func nameProblem(s string, max int) string {
	switch {
	case s == "":
		return "is empty: a name is required"
	case len(s) > max:
		return fmt.Sprintf("%q has %d characters: at most %d are allowed", clip(s), len(s), max)
	case !dnsLabel.MatchString(s):
		return fmt.Sprintf(`%q is not a name: use lower case letters, digits and "-", with a letter or digit at both ends`, clip(s))
	}
	return ""
}

func portNameProblem(s string) string {
	if why := nameProblem(s, MaxPortName); why != "" {
		return why
	}
	if !hasLetter.MatchString(s) {
		return fmt.Sprintf("%q could be taken for a port number: use at least one letter", s)
	}
	return ""
}

// labelKeyProblem keeps to Kubernetes' rule: an optional DNS name and "/",
// then up to 63 characters.
func labelKeyProblem(key string) string {
	prefix, name, hasPrefix := strings.Cut(key, "/")
	if !hasPrefix {
		prefix, name = "", key
	}
	switch {
	case key == "":
		return "is empty: a label needs a key"
	case len(name) > 63:
		return fmt.Sprintf("%q is too long: at most 63 characters are allowed (without a prefix such as example.com/)", clip(key))
	case hasPrefix && (len(prefix) > 253 || !dnsName(prefix)):
		return fmt.Sprintf(`%q has a bad prefix: before "/" stands a DNS name such as example.com`, clip(key))
	case !labelName.MatchString(name):
		return fmt.Sprintf(`%q is not a label key: use letters, digits, "-", "_" and ".", with a letter or digit at both ends`, clip(key))
	}
	return ""
}

func labelValueProblem(v string) string {
	switch {
	case v == "":
		return ""
	case len(v) > 63:
		return fmt.Sprintf("%q has %d characters: at most 63 are allowed in a label value", clip(v), len(v))
	case !labelName.MatchString(v):
		return fmt.Sprintf(`%q is not a label value: use letters, digits, "-", "_" and ".", with a letter or digit at both ends`, clip(v))
	}
	return ""
}

func dnsName(s string) bool {
	for _, label := range strings.Split(s, ".") {
		if len(label) > 63 || !dnsLabel.MatchString(label) {
			return false
		}
	}
	return true
}

// imageProblem checks the grammar of image references:
// [host[:port]/]path[:tag][@digest].
func imageProblem(ref string) string {
	const want = "want [registry/]name[:tag][@sha256:digest], such as orch.local/web:1.0"
	if ref == "" {
		return "is empty: an image is required, such as orch.local/web:1.0"
	}
	bad := func(why string) string { return fmt.Sprintf("%q is not an image: %s; %s", clip(ref), why, want) }
	if strings.ContainsAny(ref, " \t\r\n") {
		return bad("it has white space")
	}
	if strings.Contains(ref, "://") {
		return bad("it is a URL")
	}
	name, digest, hasDigest := strings.Cut(ref, "@")
	if hasDigest && !sha256Hex.MatchString(digest) && !sha512Hex.MatchString(digest) {
		return bad("the digest after @ is not sha256: and 64 hexadecimal digits in lower case")
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		if !imageTag.MatchString(name[colon+1:]) {
			return bad(`the tag after : is not 1 to 128 letters, digits, "_", "." and "-"`)
		}
		name = name[:colon]
	}
	if name == "" {
		return bad("it has no name")
	}
	if len(name) > maxRefName {
		return bad(fmt.Sprintf("its name has %d characters, at most %d are allowed", len(name), maxRefName))
	}
	return imagePathProblem(name, bad)
}

func imagePathProblem(name string, bad func(string) string) string {
	path := name
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:[") || host == "localhost") {
		if !imageHost.MatchString(host) {
			return bad(fmt.Sprintf("%q is not a registry's address", host))
		}
		path = rest
	}
	for _, part := range strings.Split(path, "/") {
		switch {
		case part == "":
			return bad("a part of its path is empty")
		case imagePart.MatchString(part):
		case imagePart.MatchString(strings.ToLower(part)):
			return bad(fmt.Sprintf("%q has upper case letters", part))
		default:
			return bad(fmt.Sprintf("%q is not a path part", part))
		}
	}
	return ""
}

// fields that a variable can be taken from, but for labels, and as Kubernetes names them.
var (
	fields      = []string{FieldName, FieldSlot, FieldEpoch, FieldRevision, FieldService, FieldNamespace, FieldNode, FieldIP}
	otherFields = map[string]string{"metadata.name": FieldName, "metadata.namespace": FieldNamespace, "spec.nodeName": FieldNode,
		"status.podIP": FieldIP, "status.hostIP": FieldNode}
	wantField = "want one of " + strings.Join(fields, ", ") + ", or " + FieldLabels + " with a label's key, such as labels.app"
)

func fieldProblem(field string) string {
	if key, ok := strings.CutPrefix(field, FieldLabels); ok {
		if why := labelKeyProblem(key); why != "" {
			return "after " + FieldLabels + ": " + why
		}
		return ""
	}
	if slices.Contains(fields, field) {
		return ""
	}
	if right, ok := otherFields[field]; ok {
		return fmt.Sprintf("%q is unknown here: write %s", field, right)
	}
	return fmt.Sprintf("%q is no field of a replica: %s", clip(field), wantField)
}

func quoted(s string) string { return strconv.Quote(clip(s)) }

// clip keeps a message on one screen whatever stood in the field.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
