package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// objectsMax bounds one apply or delete: its objects share one transaction.
const objectsMax = 1000

// decodeAll reads objects strictly, fills in defaults and validates. All that is
// wrong with any of them is told at once.
func decodeAll(objects []*orchv1.Object) ([]api.Object, error) {
	if len(objects) == 0 {
		return nil, invalid("apply: there are no objects")
	}
	if len(objects) > objectsMax {
		return nil, invalid("apply: %d objects, at most %d at once; apply them in parts", len(objects), objectsMax)
	}
	var out []api.Object
	var wrong api.Violations
	for i, o := range objects {
		at := fmt.Sprintf("objects[%d]", i)
		x, bad := decode(o)
		for _, v := range bad {
			path := at
			if v.Path != "" {
				path += "." + v.Path
			}
			wrong = append(wrong, api.Violation{Path: path, Message: v.Message})
		}
		out = append(out, x)
	}
	if len(wrong) > 0 {
		return nil, violations(wrong)
	}
	return out, nil
}

// appliable makes an empty object of each kind that can be applied.
var appliable = map[string]func() api.Object{
	api.KindService: func() api.Object { return &api.Service{} },
	api.KindJob:     func() api.Object { return &api.Job{} },
	api.KindConfig:  func() api.Object { return &api.Config{} },
	api.KindSecret:  func() api.Object { return &api.Config{TypeMeta: api.TypeMeta{Kind: api.KindSecret}} },
}

func decode(o *orchv1.Object) (api.Object, api.Violations) {
	one := func(path, format string, args ...any) (api.Object, api.Violations) {
		return nil, api.Violations{{Path: path, Message: fmt.Sprintf(format, args...)}}
	}
	empty, ok := appliable[o.GetKind()]
	if !ok {
		return one("kind", "%.80q cannot be applied: want one of %s", o.GetKind(), strings.Join(slices.Sorted(maps.Keys(appliable)), ", "))
	}
	x := empty()
	d := json.NewDecoder(bytes.NewReader(o.GetJson()))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		var typ *json.UnmarshalTypeError
		switch {
		case errors.As(err, &typ):
			found, _, _ := strings.Cut(typ.Value, " ") // "number 7" quotes what was found
			return one(typ.Field, "is a JSON %s: want %s", found, typ.Type)
		case o.GetKind() == api.KindSecret && !strings.HasPrefix(err.Error(), "json: unknown field"):
			return one("", "is no JSON of a Secret") // the reason may quote a value
		}
		return one("", "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return one("", "more follows after the JSON object")
	}
	if c, ok := x.(*api.Config); ok {
		if c.ObjectKind() != o.GetKind() {
			return one("kind", "is %.80q in an object of kind %s", c.Kind, o.GetKind())
		}
		if shownOnly(c) {
			return one("data", "a secret's values are not shown, so this cannot be applied as it is: give data, with values for %s", keysShown(c))
		}
	}
	x.Default()
	return x, api.Validate(x)
}

// object encodes a published object.
func object(kind string, v any) (*orchv1.Object, error) {
	js, err := json.Marshal(withoutValues(v))
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return &orchv1.Object{Kind: kind, Json: js}, nil
}
