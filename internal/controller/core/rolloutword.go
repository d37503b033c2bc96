package core

import (
	"fmt"
	"time"

	"github.com/orchctl/orch/api"
)

// rollout does what an operator says to a service's rollout. What is so already is
// answered as unchanged.
func (c *Core) rollout(ev Rollout) {
	c.confirm()
	if c.repeated(ev.Ticket, ev.RequestID) {
		return
	}
	s := c.services[ev.Key]
	outcome := "configured"
	var err error
	switch {
	case s == nil:
		err = fmt.Errorf("service %s: %w", ev.Key, ErrNotFound)
	case s.job != nil:
		err = say(ErrInvalid, "job %s: a job is not rolled out: delete it and apply it again, or give it another name", ev.Key)
	case s.deleting():
		err = fmt.Errorf("service %s is being deleted: %w", ev.Key, ErrBusy)
	case ev.Word == "pause":
		outcome, err = c.pause(s, ev)
	case ev.Word == "resume":
		outcome, err = c.resumeRollout(s, ev)
	case ev.Word == "undo", ev.Word == "restart":
		outcome, err = c.reviseBy(s, ev)
	default:
		err = fmt.Errorf("rollout of service %s: %w: no such word as %.40q; there are pause, resume, undo and restart", ev.Key, ErrInvalid, ev.Word)
	}
	if err != nil {
		c.answer(ev.Ticket, nil, err)
		return
	}
	if outcome != "unchanged" {
		if ops := c.remember(&request{ID: ev.RequestID, Applied: []requestedOne{{Key: ev.Key, Outcome: outcome}}}); len(ops) > 0 {
			c.write(ops...)
		}
	}
	c.answer(ev.Ticket, ApplyResult{[]Applied{{Service: c.publicService(c.services[ev.Key]), Outcome: outcome}}}, nil)
}

// pause holds the rollout where it is; of a service that has none, the next one.
func (c *Core) pause(s *service, ev Rollout) (string, error) {
	st := &s.obj.Status.Rollout
	if st.PausedBy != "" {
		return "unchanged", nil
	}
	st.PausedBy = orElse(ev.By, "unknown")
	if st.State == api.RolloutProgressing {
		st.State = api.RolloutPaused
	}
	c.putRollout(s)
	c.tellRollout(s, api.EventNormal, "Paused", fmt.Sprintf("revision %d is in %d of %d replicas, by %s", s.obj.Status.Revision, s.reached(), s.want(), st.PausedBy))
	return "configured", nil
}

// resumeRollout ends an operator's pause, else a canary's, else tries again what failed.
func (c *Core) resumeRollout(s *service, ev Rollout) (string, error) {
	st := &s.obj.Status.Rollout
	switch {
	case st.PausedBy != "":
		st.PausedBy = ""
		if st.State == api.RolloutPaused && st.StepAt.IsZero() {
			st.State = api.RolloutProgressing
		}
	case st.State == api.RolloutPaused:
		c.nextStep(s, st.Step+1)
	case st.State == api.RolloutFailed:
		st.State, st.Why, st.EndedAt = api.RolloutProgressing, "", time.Time{}
	default:
		return "", say(ErrBusy, "service %s: its rollout is not paused", s.key)
	}
	s.progress.at = c.now
	c.putRollout(s)
	c.tellRollout(s, api.EventNormal, "Resumed", "by "+orElse(ev.By, "unknown"))
	return "configured", nil
}

// reviseBy makes a new revision by an operator's word: that of an older one, or the
// newest once more.
func (c *Core) reviseBy(s *service, ev Rollout) (string, error) {
	newest := s.newest()
	if by := s.obj.Status.Rollout.PausedBy; by != "" {
		return "", say(ErrBusy, "service %s: its rollout is paused by %s: resume it first", s.key, by)
	}
	next := s.copy()
	number := s.obj.Status.Revision + 1
	if ev.Word == "undo" {
		to, err := s.undoTo(ev.Revision)
		if err != nil {
			return "", err
		}
		if same(to, newest) {
			return "unchanged", nil
		}
		next.repeat(to, ev.By, fmt.Sprintf("undo to revision %d", to.Number), api.RolloutSuperseded, supersededBy(number), c.now)
	} else {
		pins, err := c.pins(api.Ref{Key: s.key}, &newest.Template, nil)
		if err != nil {
			return "", err
		}
		next.obj.Metadata.ResourceVersion++
		next.revise(api.Revision{Template: newest.Template, Images: imagesOf(&newest.Template, ev.Images, newest.Images), Configs: pins, By: ev.By, Cause: "restart"},
			api.RolloutSuperseded, supersededBy(number), c.now)
	}
	if err := c.portConflicts([]*service{next}); err != nil {
		return "", err
	}
	ops := next.ops()
	if err := c.fits(fmt.Sprintf("%s service %s", ev.Word, s.key), ops); err != nil {
		return "", err
	}
	c.write(ops...)
	c.accept(next, "configured", ev.By, ev.Trace)
	return "configured", nil
}

func supersededBy(number int64) string { return fmt.Sprintf("revision %d took its place", number) }
