package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// kind of a method: what is neither known as a read nor as a stream of nodes is
// a change.
type kind int

const (
	change kind = iota
	read        // has a line only where it was forbidden
	nodes       // a node's own stream: what it reports. As a read
)

// method is what is known of one.
type method struct {
	kind kind
	// long calls have a line when they begin too: they may go on for hours.
	long bool
	// asked picks from the request, or from a stream's first message, what may be
	// told; told from each answer.
	asked func(m any) request
	told  func(m any, to *answers)
}

// request is what a line tells of what was asked for.
type request struct {
	objects []string
	detail  string
	id      string
	dry     bool
}

// answers gather what is told in the end.
type answers struct {
	objects []string
	texts   []string
	nodes   map[string]string // how it went on each, by name
}

func (a *answers) words() string {
	states := map[string][]string{}
	for node, state := range a.nodes {
		states[state] = append(states[state], node)
	}
	parts := slices.Clone(a.texts)
	for _, state := range sortedKeys(states) {
		slices.Sort(states[state])
		parts = append(parts, state+" "+strings.Join(states[state], ", "))
	}
	return joined(parts)
}

func (a *answers) node(name, state string) {
	if name == "" || state == "" {
		return
	}
	if a.nodes == nil {
		a.nodes = map[string]string{}
	}
	a.nodes[name] = state
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// methodOf gives a method; one that is not known is a change of which nothing is told.
func methodOf(name string) method { return methods[name] }

// methods has all (TestEveryMethodIsKnown).
var methods = map[string]method{
	orchv1.Orch_Get_FullMethodName:             {kind: read},
	orchv1.Orch_List_FullMethodName:            {kind: read},
	orchv1.Orch_Watch_FullMethodName:           {kind: read},
	orchv1.Orch_Explain_FullMethodName:         {kind: read},
	orchv1.Orch_Logs_FullMethodName:            {kind: read},
	orchv1.Orch_Version_FullMethodName:         {kind: read},
	orchv1.Orch_NetCheck_FullMethodName:        {kind: read},
	orchv1.Orch_ListImages_FullMethodName:      {kind: read},
	orchv1.Orch_Usage_FullMethodName:           {kind: read},
	orchv1.Orch_ListTokens_FullMethodName:      {kind: read},
	orchv1.Orch_ListUsers_FullMethodName:       {kind: read},
	orchv1.Orch_ListAuthorities_FullMethodName: {kind: read},

	orchv1.Orch_Apply_FullMethodName:     {asked: about(apply), told: answered(applied)},
	orchv1.Orch_Scale_FullMethodName:     {asked: about(scale)},
	orchv1.Orch_Delete_FullMethodName:    {asked: about(remove), told: answered(removed)},
	orchv1.Orch_Rollout_FullMethodName:   {asked: about(rollout)},
	orchv1.Orch_Rebalance_FullMethodName: {asked: about(rebalance), told: answered(rebalanced)},
	orchv1.Orch_NodeWord_FullMethodName:  {asked: about(nodeWord)},

	orchv1.Orch_Exec_FullMethodName:        {long: true, asked: about(exec), told: answered(ended)},
	orchv1.Orch_PortForward_FullMethodName: {long: true, asked: about(portForward), told: answered(ended)},

	orchv1.Orch_LoadImage_FullMethodName:   {told: answered(loaded)},
	orchv1.Orch_PullImage_FullMethodName:   {asked: about(pullImage), told: answered(onNode)},
	orchv1.Orch_RemoveImage_FullMethodName: {asked: about(removeImage), told: answered(onNode)},

	orchv1.Orch_CreateToken_FullMethodName: {asked: about(createToken), told: answered(madeToken)},
	orchv1.Orch_RevokeToken_FullMethodName: {asked: about(func(r *orchv1.RevokeTokenRequest) request { return only("Token", r.GetId()) })},
	orchv1.Orch_CreateUser_FullMethodName:  {asked: about(createUser)},
	orchv1.Orch_RemoveUser_FullMethodName:  {asked: about(func(r *orchv1.RemoveUserRequest) request { return only("User", r.GetName()) })},

	orchv1.Orch_RotateAuthority_FullMethodName: {told: answered(func(r *orchv1.RotateAuthorityResponse, to *answers) {
		to.objects = append(to.objects, "Authority "+r.GetAuthority().GetHash())
	})},
	orchv1.Orch_RetireAuthority_FullMethodName: {asked: about(func(r *orchv1.RetireAuthorityRequest) request {
		x := only("Authority", r.GetHash())
		x.detail = forced(r.GetForce())
		return x
	})},
	orchv1.Orch_RotateGossipKey_FullMethodName: {told: answered(func(r *orchv1.RotateGossipKeyResponse, to *answers) {
		to.objects = append(to.objects, "GossipKey "+r.GetKey())
	})},
	orchv1.Orch_RotateSecretKey_FullMethodName: {told: answered(func(r *orchv1.RotateSecretKeyResponse, to *answers) {
		to.objects = append(to.objects, "SecretKey "+r.GetKey())
		to.texts = append(to.texts, fmt.Sprintf("%d versions encrypted anew", r.GetVersions()))
	})},

	// It changes nothing, but who has a copy of everything is to be known.
	orchv1.Orch_Backup_FullMethodName: {asked: about(func(*orchv1.BackupRequest) request {
		return request{objects: []string{"Store"}, detail: "a copy of all of it"}
	})},

	orchv1.Agents_Join_FullMethodName:    {asked: about(join)},
	orchv1.Agents_Renew_FullMethodName:   {asked: about(func(r *orchv1.RenewRequest) request { return request{objects: ofCSR(r.GetCsr())} })},
	orchv1.Agents_Session_FullMethodName: {kind: nodes},
	orchv1.Agents_Relay_FullMethodName:   {kind: nodes},
}

// about and answered give functions of one message the common form.
func about[M any](f func(M) request) func(any) request {
	return func(m any) request {
		if x, ok := m.(M); ok {
			return f(x)
		}
		return request{}
	}
}

func answered[M any](f func(M, *answers)) func(any, *answers) {
	return func(m any, to *answers) {
		if x, ok := m.(M); ok {
			f(x, to)
		}
	}
}

// name is "Service default/web"; it came from outside and may be anything.
func name(kind, namespace, of string) string {
	return short(kind) + " " + short(cmp.Or(namespace, "default")) + "/" + short(of)
}

// nameMax bounds one word of a name, in bytes: what is longer names nothing.
const nameMax = 160

func short(s string) string {
	if len(s) > nameMax {
		return strings.ToValidUTF8(s[:nameMax], "") + "..."
	}
	return s
}

func only(kind, of string) request {
	if of == "" {
		return request{}
	}
	return request{objects: []string{kind + " " + short(of)}}
}

func forced(force bool) string {
	if force {
		return "forced"
	}
	return ""
}

func apply(r *orchv1.ApplyRequest) request {
	x := request{id: short(r.GetRequestId()), dry: r.GetDryRun()}
	for _, o := range r.GetObjects() {
		x.objects = append(x.objects, named(o))
	}
	return x
}

// named reads an object's name and nothing else of it.
func named(o *orchv1.Object) string {
	var of struct {
		Metadata struct{ Namespace, Name string }
	}
	if err := json.Unmarshal(o.GetJson(), &of); err != nil {
		return short(o.GetKind()) + " (unreadable)"
	}
	return name(o.GetKind(), of.Metadata.Namespace, of.Metadata.Name)
}

func applied(r *orchv1.ApplyResponse, to *answers) {
	counts := map[string]int{}
	for _, a := range r.GetApplied() {
		counts[a.GetOutcome()]++
	}
	for _, outcome := range sortedKeys(counts) {
		to.texts = append(to.texts, fmt.Sprintf("%d %s", counts[outcome], outcome))
	}
}

func scale(r *orchv1.ScaleRequest) request {
	return request{objects: []string{name("Service", r.GetNamespace(), r.GetName())}, id: short(r.GetRequestId()),
		detail: fmt.Sprintf("scale to %d", r.GetReplicas())}
}

func remove(r *orchv1.DeleteRequest) request {
	x := request{id: short(r.GetRequestId())}
	for _, ref := range r.GetRefs() {
		x.objects = append(x.objects, name(ref.GetKind(), ref.GetNamespace(), ref.GetName()))
	}
	return x
}

func removed(r *orchv1.DeleteResponse, to *answers) {
	to.texts = append(to.texts, fmt.Sprintf("%d deleted", len(r.GetDeleted())))
	if n := len(r.GetMissing()); n > 0 {
		to.texts = append(to.texts, fmt.Sprintf("%d missing", n))
	}
}

func rollout(r *orchv1.RolloutRequest) request {
	x := request{objects: []string{name("Service", r.GetNamespace(), r.GetName())}, id: short(r.GetRequestId()), detail: short(r.GetWord())}
	if r.GetRevision() != 0 {
		x.detail += fmt.Sprintf(" to revision %d", r.GetRevision())
	}
	return x
}

func rebalance(r *orchv1.RebalanceRequest) request { return request{dry: r.GetDryRun()} }

func rebalanced(r *orchv1.RebalanceResponse, to *answers) {
	for _, m := range r.GetMoves() {
		to.objects = append(to.objects, name("Replica", m.GetNamespace(), m.GetReplica()))
	}
	to.texts = append(to.texts, fmt.Sprintf("%d moves", len(r.GetMoves())))
}

func nodeWord(r *orchv1.NodeWordRequest) request {
	x := only("Node", r.GetNode())
	x.detail = short(r.GetWord())
	if d := r.GetDeadline(); d != nil {
		x.detail += ", deadline " + d.AsDuration().String()
	}
	x.detail = joined([]string{x.detail, forced(r.GetForce())})
	return x
}

func exec(f *orchv1.Frame) request {
	r := f.GetExec()
	if r == nil {
		return request{}
	}
	x := request{objects: []string{name("Replica", r.GetNamespace(), r.GetReplica())}, detail: "attach"}
	if !r.GetAttach() {
		x.detail = "exec " + quoted(r.GetCommand())
	}
	if r.GetContainer() != "" {
		x.detail += "; container " + short(r.GetContainer())
	}
	return x
}

// quoted is a command line in which words can be told apart.
func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w; w == "" || strings.ContainsAny(w, " \t\n\"'\\") {
			out[i] = fmt.Sprintf("%q", w)
		}
	}
	return cut(strings.Join(out, " "))
}

func portForward(f *orchv1.Frame) request {
	r := f.GetPortForward()
	if r == nil {
		return request{}
	}
	kind, of := "Replica", r.GetReplica()
	if of == "" {
		kind, of = "Service", r.GetService()
	}
	return request{objects: []string{name(kind, r.GetNamespace(), of)}, detail: "port " + short(r.GetPort())}
}

// ended tells how a command ended, never what went to and fro.
func ended(f *orchv1.Frame, to *answers) {
	if e := f.GetEnd(); e != nil && (e.GetExitCode() != 0 || e.GetError() != "") {
		to.texts = append(to.texts, joined([]string{fmt.Sprintf("ended with code %d", e.GetExitCode()), cut(e.GetError())}))
	}
}

func loaded(p *orchv1.LoadImageProgress, to *answers) {
	to.node(p.GetNode(), p.GetState())
	for _, ref := range p.GetRefs() {
		if x := "Image " + short(ref); !slices.Contains(to.objects, x) {
			to.objects = append(to.objects, x)
		}
	}
}

func pullImage(r *orchv1.PullImageRequest) request {
	x := only("Image", r.GetRef())
	x.detail = onNodes(r.GetNodes())
	for _, s := range r.GetPullSecrets() {
		x.objects = append(x.objects, name("Secret", r.GetNamespace(), s))
	}
	return x
}

func removeImage(r *orchv1.RemoveImageRequest) request {
	x := only("Image", r.GetRef())
	x.detail = joined([]string{onNodes(r.GetNodes()), forced(r.GetForce())})
	return x
}

func onNodes(names []string) string {
	if len(names) == 0 {
		return "all nodes"
	}
	return "nodes " + cut(strings.Join(names, ", "))
}

func onNode(p *orchv1.ImageProgress, to *answers) { to.node(p.GetNode(), p.GetState()) }

func createToken(r *orchv1.CreateTokenRequest) request {
	parts := []string{"role " + short(r.GetRole())}
	if r.GetExpires() != nil {
		parts = append(parts, "until "+r.GetExpires().AsTime().UTC().Format("2006-01-02T15:04:05Z"))
	}
	if n := r.GetMaxUses(); n != 0 {
		parts = append(parts, fmt.Sprintf("%d uses", n))
	}
	return request{detail: strings.Join(parts, ", ")}
}

// madeToken names the token by its id, which is no secret.
func madeToken(r *orchv1.CreateTokenResponse, to *answers) {
	if t, err := pki.ParseToken(r.GetToken()); err == nil {
		to.objects = append(to.objects, "Token "+t.ID)
	}
}

func createUser(r *orchv1.CreateUserRequest) request {
	x := only("User", r.GetName())
	x.detail = "role " + short(r.GetRole())
	if r.GetExpires() != nil {
		x.detail += ", until " + r.GetExpires().AsTime().UTC().Format("2006-01-02T15:04:05Z")
	}
	if r.GetReplace() {
		x.detail += ", replaces the one of that name"
	}
	return x
}

func join(r *orchv1.JoinRequest) request {
	x := only("Node", r.GetName())
	if t, err := pki.ParseToken(r.GetToken()); err == nil {
		x.objects = append(x.objects, "Token "+t.ID)
	} else {
		x.detail = "what it gave is no token"
	}
	return x
}

// ofCSR names who a certificate is asked for.
func ofCSR(der []byte) []string {
	req, err := pki.ParseCSR(der)
	if err != nil || req.Identity.Kind == "" {
		return nil
	}
	kind := string(req.Identity.Kind)
	return []string{strings.ToUpper(kind[:1]) + kind[1:] + " " + short(req.Identity.Name)}
}
