package orchctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/manifests"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// coded is an error that knows its exit code; labcmd's know theirs too.
type coded interface {
	error
	ExitCode() int
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (usageError) ExitCode() int   { return exitUsage }
func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (t *tool) flagError(cmd *cobra.Command, err error) error {
	if !cmd.HasParent() && len(t.args) > 0 && !strings.HasPrefix(t.args[0], "-") {
		return noSuchCommand(cmd, t.args) // its flags are not to blame
	}
	if cmd.HasParent() && cmd.HasSubCommands() {
		i := slices.Index(t.args, cmd.Name())
		if words := t.args[i+1:]; i >= 0 && len(words) > 0 && !strings.HasPrefix(words[0], "-") {
			if !strings.Contains(cmd.Use, " ") {
				return noSuchCommand(cmd, words) // as in create configmap app --from-literal A=b
			}
			if err := foreignType(cmd, words); err != nil { // else the word is a name
				return err
			}
		}
	}
	return usagef("%s; see `%s --help`", plainFlag(err.Error()), cmd.CommandPath())
}

// foreignFlags are flags of other systems, and what does it here.
var foreignFlags = map[string]string{
	"--docker-server":   "use --server",
	"--docker-username": "use --username",
	"--docker-password": "use --password-stdin or --password-file, as other users see a command line",
	"--password":        "use --password-stdin or --password-file, as other users see a command line",
	"--docker-email":    "leave it out",
}

// plainFlag says what a flag wants where Go's own words would stand.
func plainFlag(text string) string {
	if strings.Contains(text, `"--dry-run"`) {
		return "--dry-run takes no value: write it alone"
	}
	if name, ok := strings.CutPrefix(text, "unknown flag: "); ok && foreignFlags[name] != "" {
		return text + ": " + foreignFlags[name]
	}
	for _, x := range []struct{ from, want string }{
		{": strconv.ParseBool", "want true or false"}, {": strconv.", "want a number"}, {": time: ", "want a duration, such as 30s, 5m or 48h"},
	} {
		if i := strings.Index(text, x.from); i >= 0 {
			return text[:i] + ": " + x.want
		}
	}
	return text
}

// usageArgs makes a check of arguments answer with a usage error that shows the
// right form.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, words []string) error {
		if check(cmd, words) == nil {
			return nil
		}
		for n := len(words) - 1; n >= 0; n-- {
			if check(cmd, words[:n]) == nil {
				return usagef("unexpected argument %q\nusage: %s", words[n], cmd.UseLine())
			}
		}
		return usagef("an argument is missing\nusage: %s", cmd.UseLine())
	}
}

// exitStatus ends orchctl with a code and says nothing: the reason has been
// told, or is the remote program's own.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e exitStatus) ExitCode() int { return int(e) }

// manifestError is a manifest that cannot be used; undone says what did not happen.
type manifestError struct {
	manifests.Problems
	undone string
}

func (manifestError) ExitCode() int { return exitUsage }

// callError is a call that failed: doing says what, need which role it takes.
type callError struct {
	doing, need string
	cluster     *Cluster
	err         error
	// docs are what was sent, where they were documents: the controller knows their
	// numbers only.
	docs manifests.Docs
}

func (e *callError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// report prints an error and gives the exit code.
func (t *tool) report(err error) int {
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var c coded
	switch {
	case errors.As(err, &c):
		code = c.ExitCode()
		if code < 0 { // a program of the lab that a signal ended
			code = exitFailed
		}
	case !t.started: // cobra's own: an unknown command
		code = exitUsage
	}
	var silent exitStatus
	var program *exec.ExitError // of `lab exec`: it has said why itself
	var bad manifestError
	var call *callError
	switch {
	case errors.As(err, &silent), errors.As(err, &program):
	case errors.As(err, &bad):
		fmt.Fprintln(t.Err, bad.Error())
		t.warnf("%s in the manifests: %s", count(len(bad.Problems), "problem"), bad.undone)
	case errors.As(err, &call):
		text, invalid := call.explain(t)
		if invalid {
			code = exitUsage
		}
		t.warnf("%s", text)
	default:
		t.warnf("%s", strings.TrimPrefix(err.Error(), "orchctl: "))
	}
	return code
}

// explain says what happened and what to do; invalid is set where the request
// itself was at fault.
func (e *callError) explain(t *tool) (text string, invalid bool) {
	s, ok := status.FromError(e.err)
	if !ok {
		switch {
		case errors.Is(e.err, context.Canceled):
			return e.doing + ": interrupted", false
		case errors.Is(e.err, context.DeadlineExceeded):
			return e.late(t), false
		case transient(e.err):
			return fmt.Sprintf("%s: %v\n%s", e.doing, e.err, e.whatToCheck()), false
		}
		return e.Error(), false
	}
	message := strings.TrimPrefix(cleanText(s.Message()), e.doing+": ") // some say it too
	fields := violations(s, e.docs)
	if fields != "" {
		message = "the controller refuses it" // its message only joins what the fields say
	}
	switch s.Code() {
	case codes.InvalidArgument:
		return e.doing + ": " + message + fields, true
	case codes.PermissionDenied:
		return fmt.Sprintf("%s: %s\nuse a context with the role %s (`orchctl config get-contexts` shows yours), or ask an admin", e.doing, message, e.need), false
	case codes.FailedPrecondition:
		if reasonOf(s) == "CHANGED" && !strings.Contains(message, "exists already") {
			return fmt.Sprintf("%s: %s\nsomebody changed it meanwhile: look at it as it is now, and repeat your change on that", e.doing, message), false
		}
		return e.doing + ": " + message + fields, false
	case codes.Unauthenticated:
		return fmt.Sprintf("%s: %s\nthe controller does not accept this context's certificate: get a new context file from an admin", e.doing, message), false
	case codes.Unavailable:
		if nodeAway(s) {
			return fmt.Sprintf("%s: %s\n`orchctl get nodes -o wide` shows what is known of the node", e.doing, message), false
		}
		return fmt.Sprintf("%s: %s\n%s", e.doing, message, e.whatToCheck()), false
	case codes.DeadlineExceeded:
		return e.late(t), false
	case codes.Canceled:
		return e.doing + ": interrupted", false
	case codes.Unimplemented:
		return fmt.Sprintf("%s: %s\nthe controller does not know this call: compare the two versions that `orchctl version` shows", e.doing, message), false
	case codes.ResourceExhausted:
		return fmt.Sprintf("%s: %s\na limit of the cluster is reached: make the request smaller, or delete what is not needed", e.doing, message), false
	}
	return e.doing + ": " + message + fields, false
}

func (e *callError) late(t *tool) string {
	return fmt.Sprintf("%s: no answer within %s\n%s; --request-timeout allows more time", e.doing, short(t.timeout), e.whatToCheck())
}

func (e *callError) whatToCheck() string {
	where := "its addresses"
	if e.cluster != nil && len(e.cluster.Addresses) > 0 {
		where = strings.Join(e.cluster.Addresses, ", ")
	}
	if e.err != nil {
		if advice := connectionAdvice(e.err.Error()); advice != "" {
			return advice + "\naddresses of this context: " + where
		}
	}
	return fmt.Sprintf("check that a controller runs and that this machine reaches %s (`orchctl config view`); where several controllers run, more than half of them must", where)
}

// reasonOf is what tells errors of one code apart; "" is none.
func reasonOf(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// connectionAdvice says what to do about the ways in which a connection fails; "" where the
// cause is none that is known.
func connectionAdvice(text string) string {
	for _, x := range []struct{ says, do string }{
		{"certificate signed by unknown authority", "another cluster answers there, or its CA was rotated since this context was made: get a new context file from an admin, and check the address"},
		{"certificate has expired", "a certificate is past its end, or a clock is wrong: `date` here and there; an admin makes a new context with `orchctl user create --replace`"},
		{"certificate expired at", "an admin makes a new context with `orchctl user create NAME --role ROLE --replace`"},
		{"not yet valid", "a clock is wrong: compare `date` here and on the controllers"},
		{"bad certificate", "the controller refuses this context's certificate: it is of another cluster, has ended, or its user was removed"},
		{"unknown certificate authority", "the controller does not know who signed this context's certificate: it is of another cluster"},
		{"first record does not look like a TLS handshake", "what answers there speaks no TLS, and so is no controller: check the port (controllers have 7070)"},
		{"connection refused", "the host answers, but nothing listens there: is the controller running (`systemctl status orch-controller`), and is it this port?"},
		{"no such host", "this name has no address: check its spelling, or name the controllers by address"},
		{"network is unreachable", "this machine has no way there: check its network or VPN"},
		{"i/o timeout", "nothing answers there: the host is down, or a firewall drops what is sent"},
		{"certificate is valid for", "the certificate of who answers is for another name: check the address"},
	} {
		if strings.Contains(text, x.says) {
			return x.do
		}
	}
	return ""
}

// nodeAway tells whether it is a node that cannot be reached, not a controller.
func nodeAway(s *status.Status) bool {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason() == "NODE_AWAY"
		}
	}
	return strings.HasPrefix(s.Message(), "node ")
}

// violations gives the fields at fault, a line each.
func violations(s *status.Status, docs manifests.Docs) string {
	var b strings.Builder
	for _, d := range s.Details() {
		bad, ok := d.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			field := cleanText(inFile(v.GetField(), docs))
			if field != "" {
				field += ": "
			}
			fmt.Fprintf(&b, "\n  %s%s", field, cleanText(v.GetDescription()))
		}
	}
	return b.String()
}

// inFile says of a field of objects[N] in which document of which file it is.
func inFile(field string, docs manifests.Docs) string {
	object, rest, _ := strings.Cut(field, "]")
	number, ok := strings.CutPrefix(object, "objects[")
	i, err := strconv.Atoi(number)
	if !ok || err != nil || i < 0 || i >= len(docs) {
		return field
	}
	d := docs[i]
	return strings.TrimSuffix(fmt.Sprintf("%s:%d: document %d: %s", d.File, d.Line, d.Index, strings.TrimPrefix(rest, ".")), ": ")
}

// notFound tells whether a call failed because the thing is not there.
func notFound(err error) bool {
	return status.Code(unwrapCall(err)) == codes.NotFound
}

// unknownKind tells whether a list failed because the controller is older than this
// orchctl and has no such objects.
func unknownKind(err error) bool {
	return status.Code(unwrapCall(err)) == codes.InvalidArgument
}

func unwrapCall(err error) error {
	var c *callError
	if errors.As(err, &c) {
		return c.err
	}
	return err
}

// fileReason gives the cause without operation and path.
func fileReason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
