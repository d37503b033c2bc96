package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

func (x *Config) check(c *checker) {
	c.meta(x.TypeMeta, &x.Metadata, x.ObjectKind(), MaxConfigName)
	size := 0
	for _, key := range slices.Sorted(maps.Keys(x.Data)) {
		here, value := index("data", key), x.Data[key]
		c.report(here, configKeyProblem(key))
		if !utf8.ValidString(value) {
			c.add(here, "is no UTF-8 text: move it to binaryData, in base64")
		}
		size += len(value)
	}
	for _, key := range slices.Sorted(maps.Keys(x.BinaryData)) {
		here := index("binaryData", key)
		c.report(here, configKeyProblem(key))
		if _, twice := x.Data[key]; twice {
			c.add(here, "stands in data already: remove one of them")
		}
		size += len(x.BinaryData[key])
	}
	c.configSize(x, size)
	c.secretType(x)
}

func (c *checker) configSize(x *Config, size int) {
	const path = "data"
	if size > MaxConfigBytes {
		c.add(path, "all values together have %d bytes: at most %d are allowed; split the %s, or put large files into the image or a volume",
			size, MaxConfigBytes, c.what)
		return
	}
	if b, err := json.Marshal(x); err == nil && len(b) > maxConfigJSON {
		c.add(path, "takes %d bytes when it is stored, as control characters, <, > and & take six each, and long keys and annotations count: at most %d are allowed; move such values to binaryData, or split the %s",
			len(b), maxConfigJSON, c.what)
	}
}

var configKey = regexp.MustCompile(`^[-._A-Za-z0-9]+$`)

// configKeyProblem: a key is the name of a file where all of them are mounted.
func configKeyProblem(s string) string {
	switch {
	case s == "":
		return "is empty: a value needs a key"
	case len(s) > MaxConfigKey:
		return fmt.Sprintf("%q has %d characters: at most %d are allowed in a key", clip(s), len(s), MaxConfigKey)
	case s == "." || s == "..":
		return fmt.Sprintf("%q is not a key: no file can have that name", s)
	case strings.Contains(s, "/"):
		return fmt.Sprintf(`%q is not a key, for folders cannot be nested: use letters, digits, "-", "_" and "."`, clip(s))
	case !configKey.MatchString(s):
		return fmt.Sprintf(`%q is not a key: use letters, digits, "-", "_" and "."`, clip(s))
	}
	return ""
}

func (c *checker) envFrom(path string, list []EnvFrom) {
	for i, x := range list {
		here := at(path, i)
		if kinds := count(x.Config != "", x.Secret != ""); kinds != 1 {
			c.add(here, "has %d of config and secret: exactly one is needed", kinds)
		}
		if x.Config != "" {
			c.report(here+".config", nameProblem(x.Config, MaxConfigName))
		}
		if x.Secret != "" {
			c.report(here+".secret", nameProblem(x.Secret, MaxConfigName))
		}
		if x.Prefix != "" && !IsVariable(x.Prefix) {
			c.add(here+".prefix", `%q cannot begin a variable's name: use letters, digits, "_", "-" and ".", not starting with a digit`, clip(x.Prefix))
		}
	}
}

func (c *checker) envSource(path string, from *EnvSource) {
	switch kinds := count(from.Field != "", from.Config != nil, from.Secret != nil); {
	case kinds == 0:
		c.add(path, "has none of field, config and secret: exactly one is needed; of field %s", wantField)
	case kinds > 1:
		c.add(path, "has %d of field, config and secret: exactly one is needed", kinds)
	case from.Field != "":
		c.report(path+".field", fieldProblem(from.Field))
	}
	c.keyRef(path+".config", from.Config)
	c.keyRef(path+".secret", from.Secret)
}

func (c *checker) keyRef(path string, ref *KeyRef) {
	if ref == nil {
		return
	}
	c.report(path+".name", nameProblem(ref.Name, MaxConfigName))
	c.report(path+".key", configKeyProblem(ref.Key))
}
