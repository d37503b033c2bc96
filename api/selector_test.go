package api

import (
	"reflect"
	"testing"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"app": "web", "tier": "front", "example.com/zone": "eu", "empty": ""}
	for text, want := range map[string]bool{
		"": true, "  ": true, "app=web": true, "app==web": true, " app = web ": true, "app=api": false, "app!=api": true, "app!=web": false,
		"none!=x": true, "none=x": false, "app": true, "none": false, "!none": true, "!app": false, "! none": true,
		"app in (web,api)": true, "app in ( web , api )": true, "app in (api)": false, "app notin (api)": true, "app notin (web)": false, "none notin (x)": true,
		"app=web,tier=front": true, "app=web,tier=back": false, "app in (web,api),tier!=back,!none": true,
		"example.com/zone=eu": true, "empty=": true, "app=": false, "app in(web)": true,
	} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := s.Matches(labels); got != want {
			t.Errorf("%q matches: %t, want %t", text, got, want)
		}
	}
}

func TestSelectorErrors(t *testing.T) {
	for text, want := range map[string]string{
		"app=web,":                 `selector "app=web,": a condition is empty: remove the extra comma`,
		"app in web":               `selector "app in web": "app in web": want a set in parentheses, such as app in (web,api)`,
		"app in (web":              `selector "app in (web": "app in (web": want <key> in (<value>,...) or <key> notin (<value>,...)`,
		"app on (web)":             `selector "app on (web)": "app on (web)": "on" is neither "in" nor "notin"`,
		"=web":                     `selector "=web": "=web": key is empty: a label needs a key`,
		"app=a b":                  `selector "app=a b": "app=a b": value "a b" is not a label value: use letters, digits, "-", "_" and ".", with a letter or digit at both ends`,
		"app=web=x":                `selector "app=web=x": "app=web=x": value "web=x" is not a label value: use letters, digits, "-", "_" and ".", with a letter or digit at both ends`,
		"!":                        `selector "!": "!": key is empty: a label needs a key`,
		"app in (a)(b)":            `selector "app in (a)(b)": "app in (a)(b)": want <key> in (<value>,...) or <key> notin (<value>,...)`,
		"bad_host./x=y":            `selector "bad_host./x=y": "bad_host./x=y": key "bad_host./x" has a bad prefix: before "/" stands a DNS name such as example.com`,
		string(make([]byte, 5000)): "selector has 5000 characters: at most 4096 are allowed",
	} {
		if s, err := ParseSelector(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", text, s, err, want)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"app=web,tier!=x", "a in (b,c),!d", "a notin (),b", "a==b", "a in (", "!a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		again, err := ParseSelector(s.String())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%q is %v, prints %q, reads back %v, %v", text, s, s, again, err)
		}
		s.Matches(map[string]string{"a": "b"})
	})
}
