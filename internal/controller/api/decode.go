package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// objectsMax bounds one apply or delete: its objects share one transaction.
const objectsMax = 1000

// decodeAll reads services strictly, fills in defaults and validates. All that
// is wrong with any of them is told at once.
func decodeAll(objects []*orchv1.Object) ([]*api.Service, error) {
	if len(objects) == 0 {
		return nil, invalid("apply: there are no objects")
	}
	if len(objects) > objectsMax {
		return nil, invalid("apply: %d objects, at most %d at once; apply them in parts", len(objects), objectsMax)
	}
	var services []*api.Service
	var wrong api.Violations
	for i, o := range objects {
		at := fmt.Sprintf("objects[%d]", i)
		s, bad := decode(o)
		for _, v := range bad {
			path := at
			if v.Path != "" {
				path += "." + v.Path
			}
			wrong = append(wrong, api.Violation{Path: path, Message: v.Message})
		}
		services = append(services, s)
	}
	if len(wrong) > 0 {
		return nil, violations(wrong)
	}
	return services, nil
}

func decode(o *orchv1.Object) (*api.Service, api.Violations) {
	one := func(path, format string, args ...any) (*api.Service, api.Violations) {
		return nil, api.Violations{{Path: path, Message: fmt.Sprintf(format, args...)}}
	}
	if o.GetKind() != api.KindService {
		return one("kind", "%.80q cannot be applied: want %q", o.GetKind(), api.KindService)
	}
	s := &api.Service{}
	d := json.NewDecoder(bytes.NewReader(o.GetJson()))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return one(typ.Field, "is a JSON %s: want %s", typ.Value, typ.Type)
		}
		return one("", "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return one("", "more follows after the JSON object")
	}
	s.Default()
	return s, api.Validate(s)
}

// object encodes a published object.
func object(kind string, v any) (*orchv1.Object, error) {
	js, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return &orchv1.Object{Kind: kind, Json: js}, nil
}
