package orchctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// orReplicas adds to what is no one replica that a service or a job is named so, whose
// replicas may be meant. Without an answer nothing is added.
func (t *tool) orReplicas(ctx context.Context, client orchv1.OrchClient, x target, err error) error {
	if code := status.Code(unwrapCall(err)); code != codes.NotFound && code != codes.InvalidArgument {
		return err
	}
	for _, kind := range []string{api.KindService, api.KindJob} {
		of := target{kind, x.namespace, x.name}
		if t.isThere(ctx, client, of) {
			code := t.report(err)
			t.warnf("did you mean %s?", t.named(kind, x.namespace, x.name))
			return exitStatus(code)
		}
	}
	return err
}

// orJob says of a service that is missing that it is a job.
func (t *tool) orJob(ctx context.Context, client orchv1.OrchClient, x target, missing error) error {
	if of := (target{api.KindJob, x.namespace, x.name}); missing != nil && t.isThere(ctx, client, of) {
		return noRollouts(of)
	}
	return missing
}

func noRollouts(x target) error {
	return usagef("jobs have no rollouts: `orchctl describe job %s -n %s` tells how it went", x.name, x.namespace)
}

// isThere tells whether an object is there, as far as that can be learned.
func (t *tool) isThere(ctx context.Context, client orchv1.OrchClient, x target) bool {
	asked, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	_, err := client.Get(asked, &orchv1.GetRequest{Ref: x.ref()})
	return err == nil
}

// isVolumeName refuses what no volume can be named.
func isVolumeName(name string) error {
	if !strings.Contains(name, ".") {
		return usagef("%q is no volume: they are named VOLUME.SERVICE-SLOT, such as data.db-0", name)
	}
	return nil
}

// errNoValues refuses a config or secret without any.
var errNoValues = errors.New("it would have no values: give --from-literal, --from-file or --from-env-file")

// allHint is what to say instead of "all".
func allHint() string {
	many := []string{}
	for _, kind := range slices.Insert(slices.Clone(deletableKinds), 2, api.KindReplica) {
		many = append(many, words(kind))
	}
	return fmt.Sprintf("; did you mean `orchctl get %s`?", strings.Join(many, ","))
}
