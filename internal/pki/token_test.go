package pki

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func newToken(t testing.TB, role JoinRole) (string, TokenRecord) {
	t.Helper()
	s, r, err := NewToken(newCA(t, "prod"), role, t0, t0.Add(time.Hour), 0, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s, r
}

func TestTokenRoundTrip(t *testing.T) {
	ca := newCA(t, "prod")
	for _, role := range JoinRoles() {
		s, rec, err := NewToken(ca, role, t0, t0.Add(time.Hour), 0, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tok := ok(ParseToken(" " + s + "\n"))(t)
		if tok.CAHash != ca.Hash() || tok.ID != rec.ID || rec.Role != role || tok.reveal() != s {
			t.Errorf("token %s, record %+v", tok, rec)
		}
		wantErr(t, rec.Check(tok, t0), "")
		wantErr(t, rec.Check(tok, t0.Add(time.Hour-1)), "")
		id := ok(role.Identity("x1"))(t)
		if string(id.Kind) != string(role) || id.Name != "x1" || id.Role != "" {
			t.Errorf("%s joins as %v", role, id)
		}
	}
}

// TestTokenSecretStaysIn: nothing that is stored or printed holds the secret.
func TestTokenSecretStaysIn(t *testing.T) {
	s, rec := newToken(t, JoinNode)
	tok := ok(ParseToken(s))(t)
	secret := s[strings.LastIndex(s, ".")+1:]
	stored := string(ok(json.Marshal(rec))(t))
	prints := []string{stored, string(ok(json.Marshal(tok))(t)),
		fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok), fmt.Sprintf("%v %+v %#v", &tok, struct{ T Token }{tok}, []Token{tok})}
	raw := fmt.Sprintf("%x", tok.secret)
	for _, p := range prints {
		if strings.Contains(p, secret) || strings.Contains(p, raw) || strings.Contains(p, fmt.Sprint(tok.secret)) {
			t.Errorf("the secret shows in %s", p)
		}
	}
	var back TokenRecord
	if err := json.Unmarshal([]byte(stored), &back); err != nil || back != rec {
		t.Errorf("record comes back as %+v, %v", back, err)
	}
	wantErr(t, back.Check(tok, t0), "")
	if want := `"role":"node","created":"2026-03-01T12:00:00Z","expires":"2026-03-01T13:00:00Z","uses":0}`; !strings.HasSuffix(stored, want) {
		t.Errorf("stored %s, want ... %s", stored, want)
	}
}

func TestTokenCheck(t *testing.T) {
	s, rec := newToken(t, JoinNode)
	tok := ok(ParseToken(s))(t)
	otherString, other := newToken(t, JoinNode)
	change := func(f func(*TokenRecord)) TokenRecord { r := rec; f(&r); return r }
	end := t0.Add(time.Hour)
	for _, c := range []struct {
		name string
		rec  TokenRecord
		tok  Token
		now  time.Time
		is   error
		want string
	}{
		{"good", rec, tok, t0, nil, ""},
		{"uses left", change(func(r *TokenRecord) { r.Uses, r.MaxUses = 1, 2 }), tok, t0, nil, ""},
		{"expired", rec, tok, end, ErrTokenExpired, "expired at 2026-03-01T13:00:00Z"},
		{"used up", change(func(r *TokenRecord) { r.Uses, r.MaxUses = 2, 2 }), tok, t0, ErrTokenUsedUp, "used up: 2 of 2 uses"},
		{"revoked", change(func(r *TokenRecord) { r.Revoked = t0 }), tok, t0, ErrTokenRevoked, "revoked at 2026-03-01T12:00:00Z"},
		{"revoked and expired", change(func(r *TokenRecord) { r.Revoked = t0 }), tok, end, ErrTokenRevoked, "revoked at"},
		{"role", change(func(r *TokenRecord) { r.Role = "king" }), tok, t0, ErrTokenRole, `unknown join role "king"`},
		{"other token", rec, ok(ParseToken(otherString))(t), t0, ErrTokenSecret, "wrong secret"},
		{"other record", other, tok, t0, ErrTokenSecret, "wrong secret"},
		{"wrong secret of an expired one", rec, Token{ID: tok.ID, secret: make([]byte, tokenSecretBytes)}, end, ErrTokenSecret, "wrong secret"},
		{"zero token", rec, Token{}, t0, ErrTokenSecret, "wrong secret"},
		{"zero record", TokenRecord{}, tok, t0, ErrTokenSecret, "wrong secret"},
		{"zero both", TokenRecord{}, Token{}, t0, ErrTokenSecret, "wrong secret"},
		{"empty secret that fits", TokenRecord{SecretHash: hex.EncodeToString(Token{}.hash("")), Role: JoinNode, Expires: end}, Token{}, t0, ErrTokenSecret, "wrong secret"},
		{"broken record", change(func(r *TokenRecord) { r.SecretHash = "zz" }), tok, t0, ErrTokenSecret, "wrong secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.rec.Check(c.tok, c.now)
			wantErr(t, err, c.want)
			if !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "join token "+c.tok.ID) {
				t.Errorf("%v does not name the token", err)
			}
		})
	}
}

func TestNewTokenRefuses(t *testing.T) {
	ca := newCA(t, "prod")
	_, _, err := NewToken(ca, "king", t0, t0.Add(time.Hour), 0, rand.Reader)
	wantErr(t, err, `make join token: unknown join role "king"`)
	_, _, err = NewToken(ca, JoinNode, t0, t0, 0, rand.Reader)
	wantErr(t, err, "make join token for node: it would expire at 2026-03-01T12:00:00Z, before it is made")
	_, _, err = NewToken(ca, JoinNode, t0, t0.Add(1), 0, bytes.NewReader(make([]byte, 3)))
	wantErr(t, err, "make join token for node: unexpected EOF")
}

func TestParseTokenRefuses(t *testing.T) {
	s, _ := newToken(t, JoinNode)
	p := strings.Split(s, ".")
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	for _, c := range []struct{ in, want string }{
		{"", `not a join token: it does not begin with "orch1."`},
		{"orch2" + s[5:], `it does not begin with "orch1."`},
		{"orch1", "it has 1 parts between dots, want 4"},
		{s + ".x", "it has 5 parts between dots, want 4"},
		{join(p[0], p[1][1:], p[2], p[3]), "the CA hash is not 64 lower-case hex digits"},
		{join(p[0], strings.Repeat("A", 64), p[2], p[3]), "the CA hash is not 64 lower-case hex digits"},
		{join(p[0], strings.Repeat("g", 64), p[2], p[3]), "the CA hash is not 64 lower-case hex digits"},
		{join(p[0], p[1], p[2][1:], p[3]), "the token's id is damaged"},
		{join(p[0], p[1], "ABCDEFGH", p[3]), "the token's id is damaged"},
		{join(p[0], p[1], p[2], p[3][1:]), "the secret is damaged"},
		{join(p[0], p[1], p[2], p[3][:4]+"\n"+p[3][4:]), "the secret is damaged"},
		{join(p[0], p[1], p[2], "1"+p[3][1:]), "the secret is damaged"},
	} {
		_, err := ParseToken(c.in)
		wantErr(t, err, c.want)
		if !errors.Is(err, ErrTokenForm) || strings.Contains(err.Error(), p[3][8:]) {
			t.Errorf("%v is not ErrTokenForm, or repeats the secret", err)
		}
	}
}

// TestTokenTampering: changing any single character is noticed, by the parser, by
// the record or, in the CA's hash, by the pin.
func TestTokenTampering(t *testing.T) {
	s, rec := newToken(t, JoinNode)
	good := ok(ParseToken(s))(t)
	for i := range s {
		for _, c := range "a7.Z" {
			if rune(s[i]) == c {
				continue
			}
			tok, err := ParseToken(s[:i] + string(c) + s[i+1:])
			if err == nil && tok.CAHash == good.CAHash && rec.Check(tok, t0) == nil {
				t.Errorf("token with %q at byte %d is accepted", c, i)
			}
		}
	}
}

func FuzzParseToken(f *testing.F) {
	s, rec := newToken(f, JoinNode)
	f.Add(s)
	f.Add(s + "\n")
	f.Add("orch1..." + s)
	f.Add(strings.ToUpper(s))
	f.Fuzz(func(t *testing.T, in string) {
		tok, err := ParseToken(in)
		if err != nil {
			if !errors.Is(err, ErrTokenForm) {
				t.Errorf("%v is not ErrTokenForm", err)
			}
			return
		}
		if tok.reveal() != strings.TrimSpace(in) {
			t.Errorf("%q reads as another token", in)
		}
		if rec.Check(tok, t0) == nil && !strings.HasSuffix(strings.TrimSpace(in), s[len(tokenPrefix)+1+64:]) {
			t.Errorf("%q passes for another token", in)
		}
	})
}
