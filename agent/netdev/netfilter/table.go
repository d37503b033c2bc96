package netfilter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/orchctl/orch/internal/network"
)

// applyTimeout bounds one run of nft, which takes 5 ms to change one service and
// half a second to make a thousand.
const applyTimeout = 30 * time.Second

// Table is the nftables table "ip orch". Its methods may be called concurrently.
type Table struct {
	loopback loopback

	mu  sync.Mutex
	nft knftables.Interface // nil until it was there
	// generation of the machine's rules after our last change; touched: others have
	// changed some since Touched was last asked.
	generation uint32
	touched    bool
}

// New gives the table without looking at it. marker is the path of a file that is
// gone after a reboot, as the kernel's settings are.
func New(marker string) *Table { return &Table{loopback: loopback{marker: marker}} }

// Apply carries a change out, whole or not at all.
func (t *Table) Apply(ctx context.Context, c network.Change) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Empty() {
		return t.loopback.open()
	}
	if err := t.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	before, err := generation()
	if err != nil {
		return err
	}
	if err := t.nft.Run(ctx, transaction(t.nft, c)); err != nil {
		return fmt.Errorf("set nftables rules: %w", wordy(err))
	}
	after, err := generation()
	if err != nil {
		return err
	}
	if before != t.generation || after != before+1 {
		t.touched = true
	}
	t.generation = after
	return t.loopback.open()
}

// open finds nft. It may come to be installed while the agent runs.
func (t *Table) open() error {
	if t.nft != nil {
		return nil
	}
	nft, err := knftables.New(knftables.IPv4Family, network.TableName)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("set nftables rules: the program nft is missing: install the package nftables")
	case err != nil:
		return fmt.Errorf("set nftables rules: %w", wordy(err))
	}
	t.nft = nft
	return nil
}

// wordy says what to do where the kernel lacks something.
func wordy(err error) error {
	for _, sign := range []string{"Operation not supported", "Protocol not supported", "Could not process rule: No such file or directory"} {
		if strings.Contains(err.Error(), sign) {
			return fmt.Errorf("%w (the kernel may lack nf_tables with nat, fib, masquerade or numgen)", err)
		}
	}
	return err
}

// transaction writes a change in an order that the kernel takes: what is pointed at
// before what points there, and the other way round when it goes.
func transaction(nft knftables.Interface, c network.Change) *knftables.Transaction {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	if c.Whole {
		tx.Delete(&knftables.Table{})
		tx.Add(&knftables.Table{})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sets)) {
		addSet(tx, name, c.Sets[name])
	}
	chains := slices.Sorted(maps.Keys(c.Chains))
	for _, name := range chains {
		chain := &knftables.Chain{Name: name}
		if b := c.Chains[name].Base; b != nil {
			chain.Type, chain.Hook = knftables.PtrTo(knftables.BaseChainType(b.Type)), knftables.PtrTo(knftables.BaseChainHook(b.Hook))
			chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(fmt.Sprint(b.Priority)))
		}
		tx.Add(chain)
		if !c.Whole {
			tx.Flush(&knftables.Chain{Name: name})
		}
	}
	for _, name := range chains {
		for _, r := range c.Chains[name].Rules {
			tx.Add(&knftables.Rule{Chain: name, Rule: r.Text, Comment: &r.Hash})
		}
	}
	elements(c.Drop, tx.Delete)
	elements(c.Put, tx.Add)
	for _, name := range c.DropChains {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range c.DropChains {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range c.DropSets {
		tx.Delete(&knftables.Set{Name: name})
	}
	return tx
}

func addSet(tx *knftables.Transaction, name string, s network.Set) {
	switch {
	case s.Value != "":
		tx.Add(&knftables.Map{Name: name, Type: s.Key + " : " + s.Value})
	case s.Timeout > 0:
		tx.Add(&knftables.Set{Name: name, Type: s.Key, Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag},
			Timeout: knftables.PtrTo(time.Duration(s.Timeout) * time.Second), Size: knftables.PtrTo(uint64(network.AffinitySizeMax))})
	default:
		tx.Add(&knftables.Set{Name: name, Type: s.Key})
	}
}

func elements(of map[string]map[string]string, do func(knftables.Object)) {
	for _, set := range slices.Sorted(maps.Keys(of)) {
		for _, key := range slices.Sorted(maps.Keys(of[set])) {
			e := &knftables.Element{Key: []string{key}}
			if value := of[set][key]; value != "" {
				e.Map, e.Value = set, []string{value}
			} else {
				e.Set = set
			}
			do(e)
		}
	}
}

// Touched tells whether anybody else has changed rules of this network namespace
// since it was last asked: rules of his own, or ours. It costs one message to the
// kernel.
func (t *Table) Touched() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := generation()
	if err != nil {
		return false, err
	}
	touched := t.touched || now != t.generation
	t.touched, t.generation = false, now
	return touched, t.loopback.check()
}

// Remove takes the table and what came with it out of the kernel. One that is not
// there is no error. Connections that are led somewhere stay so.
func (t *Table) Remove(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	// First: without the chain "guard" neighbours would reach what listens on
	// 127.0.0.1 only.
	if err := t.loopback.close(); err != nil {
		return err
	}
	if err := t.open(); err != nil {
		return err
	}
	tx := t.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that it is there to be deleted
	tx.Delete(&knftables.Table{})
	if err := t.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nftables rules: %w", err)
	}
	return nil
}
