package secrets

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/orchctl/orch/api"
)

// values is the one form in which values are stored: keys in order, as encoding/json
// writes maps.
type values struct {
	Data       map[string]string `json:"data,omitempty"`
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
}

// Encode gives the values of a Config or Secret as they are stored, and the size of
// each in bytes.
func Encode(c *api.Config) (plain []byte, keys map[string]int, err error) {
	plain, err = json.Marshal(values{Data: c.Data, BinaryData: c.BinaryData})
	if err != nil {
		return nil, nil, errors.New("cannot encode the values") // the error might quote one
	}
	keys = make(map[string]int, len(c.Data)+len(c.BinaryData))
	for k, v := range c.Data {
		keys[k] = len(v)
	}
	for k, v := range c.BinaryData {
		keys[k] = len(v)
	}
	return plain, keys, nil
}

// Decode gives the values by key of what Encode gave. It tells nothing of what it cannot
// read.
func Decode(plain []byte) (map[string][]byte, error) {
	var v values
	if err := json.Unmarshal(plain, &v); err != nil {
		return nil, errors.New("the stored values are no JSON of a Config")
	}
	out := make(map[string][]byte, len(v.Data)+len(v.BinaryData))
	for k, text := range v.Data {
		out[k] = []byte(text)
	}
	for k, data := range v.BinaryData {
		out[k] = data
	}
	return out, nil
}

// DigestPlain is the digest of a Config, whose values are nobody's secret.
func DigestPlain(plain []byte) string {
	sum := sha256.Sum256(plain)
	return "sha256:" + hex.EncodeToString(sum[:])
}
