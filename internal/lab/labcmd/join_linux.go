package labcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/lab"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// joinMax is how long nodes may take to join: they take half a second.
	joinMax = 30 * time.Second
	// joinLook is the time between two looks.
	joinLook = 20 * time.Millisecond
)

// awaitNodes waits until so many nodes are healthy, so that what comes after
// `lab up` in a script finds a fleet. The lab stays up where they are not.
func awaitNodes(ctx context.Context, l *lab.Lab, want int) error {
	ctx, cancel := context.WithTimeout(ctx, joinMax)
	defer cancel()
	file, err := clientconfig.Load(l.AdminContext())
	if err != nil {
		return err
	}
	c, err := file.Context("")
	if err != nil {
		return err
	}
	conn, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := orchv1.NewOrchClient(conn)
	for {
		healthy, err := healthyNodes(ctx, client)
		if err == nil && healthy >= want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab %s is up, but only %d of %d nodes joined (%v): the agents' logs are in %s", l.Name(), healthy, want, ctx.Err(), l.Dir())
		case <-time.After(joinLook):
		}
	}
}

func healthyNodes(ctx context.Context, client orchv1.OrchClient) (int, error) {
	list, err := client.List(ctx, &orchv1.ListRequest{Kind: api.KindNode})
	if err != nil {
		return 0, err
	}
	healthy := 0
	for _, o := range list.GetObjects() {
		var n api.Node
		if err := json.Unmarshal(o.GetJson(), &n); err != nil {
			return 0, err
		}
		if n.Status.Verdict == api.VerdictHealthy {
			healthy++
		}
	}
	return healthy, nil
}
