package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Violation is one thing that is wrong with an object.
type Violation struct {
	// Path is the field, from the document's root: spec.containers[0].image,
	// metadata.labels[app].
	Path string `json:"path"`
	// Message says what is wrong and what would be right.
	Message string `json:"message"`
}

// String gives "path: message".
func (v Violation) String() string { return v.Path + ": " + v.Message }

// Violations are all that is wrong with one object, in the order of its fields.
type Violations []Violation

// Error gives one line per violation.
func (v Violations) Error() string {
	lines := make([]string, len(v))
	for i, x := range v {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Err gives the violations as an error, nil if there are none.
func (v Violations) Err() error {
	if len(v) == 0 {
		return nil
	}
	return v
}

// Validate tells all that is wrong with an object. It takes objects before and
// after Default; what Default would fill in is not missed.
func Validate(o Object) Violations {
	c := &checker{what: strings.ToLower(o.ObjectKind())}
	o.check(c)
	return c.found
}

func (s *Service) check(c *checker) {
	c.meta(s.TypeMeta, &s.Metadata, KindService, MaxServiceName)
	c.spec(&s.Spec)
	c.size(s)
}

// size bounds what a service or a job takes in the store.
func (c *checker) size(o Object) {
	if b, err := json.Marshal(o); err == nil && len(b) > MaxServiceBytes {
		c.add("spec", "the %s takes %d bytes: at most %d are allowed; move large values out of env and args, such as into a Config", c.what, len(b), MaxServiceBytes)
	}
}

// checker gathers violations, so that a user sees all of them at once.
type checker struct {
	// what the object is in words: "service", "job", "config", "secret".
	what  string
	found Violations
}

func (c *checker) add(path, format string, args ...any) {
	c.found = append(c.found, Violation{path, fmt.Sprintf(format, args...)})
}

// report adds the outcome of a grammar of names.go.
func (c *checker) report(path, why string) {
	if why != "" {
		c.found = append(c.found, Violation{path, why})
	}
}

func (c *checker) labels(path string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		c.report(index(path, key), labelKeyProblem(key))
		c.report(index(path, key), labelValueProblem(labels[key]))
	}
}

func (c *checker) spec(s *ServiceSpec) {
	c.mode(s)
	c.priority(s.Priority)
	c.rollout(s)
	c.traffic(s)
	c.template(&s.Template)
	c.serviceOnly(&s.Template)
	c.partition(&s.Template)
}

func (c *checker) priority(n int) {
	if n < -MaxPriority || n > MaxPriority {
		c.add("spec.priority", "is %d: want -%d to %d; 0 is usual, higher is more important", n, MaxPriority, MaxPriority)
	}
}

// template checks what holds for the replicas of services and jobs alike.
func (c *checker) template(t *Template) {
	c.containers(t)
	c.pullSecrets("spec.pullSecrets", t.PullSecrets)
	c.sysctls(t)
	c.labels("spec.nodeSelector", t.NodeSelector)
	for i, x := range t.Constraints {
		c.constraint(at("spec.constraints", i), x)
	}
	c.restart("spec.restartPolicy", t.RestartPolicy)
	c.duration("spec.terminationGracePeriod", t.TerminationGracePeriod, 0, MaxGrace)
}

// serviceOnly refuses what only a job's containers have.
func (c *checker) serviceOnly(t *Template) {
	eachContainer(t, func(path string, x *Container) {
		if x.Stdin {
			c.add(path+".stdin", "is for the command of a job, which somebody attaches to: remove it, or make this a Job")
		}
	})
}

func (c *checker) constraint(path string, x Constraint) {
	c.report(path+".key", labelKeyProblem(x.Key))
	switch x.Operator {
	case OpIn, OpNotIn:
		if len(x.Values) == 0 {
			c.add(path+".values", "is required with operator %s: list at least one value", x.Operator)
		}
	case OpExists, OpDoesNotExist:
		if len(x.Values) > 0 {
			c.add(path+".values", "must be left out with operator %s: it only asks for the key", x.Operator)
		}
	case "":
		c.add(path+".operator", "is required: one of In, NotIn, Exists, DoesNotExist")
	default:
		c.add(path+".operator", "%q is unknown: want one of In, NotIn, Exists, DoesNotExist", clip(string(x.Operator)))
	}
	for i, v := range x.Values {
		c.report(at(path+".values", i), labelValueProblem(v))
	}
}

func (c *checker) restart(path string, p RestartPolicy) {
	switch p.Condition {
	case "", RestartAlways, RestartOnFailure, RestartNever:
	default:
		c.add(path+".condition", "%q is unknown: want one of always, onFailure, never", clip(string(p.Condition)))
	}
	c.duration(path+".backOff", p.BackOff, MinBackOff, MaxDelay)
	c.duration(path+".maxBackOff", p.MaxBackOff, MinBackOff, MaxDelay)
	c.duration(path+".resetAfter", p.ResetAfter, MinBackOff, MaxDelay)
	p.fill() // p is a copy
	if *p.BackOff > *p.MaxBackOff {
		c.add(path+".maxBackOff", "is %s, below backOff, which is %s: raise it", p.MaxBackOff, p.BackOff)
	}
}

func (c *checker) duration(path string, d *Duration, least, most time.Duration) {
	switch {
	case d == nil:
	case time.Duration(*d) < 0:
		c.add(path, "%s is negative", d)
	case time.Duration(*d) < least:
		c.add(path, "%s is too short: at least %s is needed", d, Duration(least))
	case time.Duration(*d) > most:
		c.add(path, "%s is too long: at most %s is allowed", d, Duration(most))
	}
}

func at(path string, i int) string  { return fmt.Sprintf("%s[%d]", path, i) }
func index(path, key string) string { return path + "[" + clip(key) + "]" }
