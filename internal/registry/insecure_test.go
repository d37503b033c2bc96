package registry

import "testing"

func TestCheckInsecure(t *testing.T) {
	for host, ok := range map[string]bool{
		"registry.example": true, "registry.example:5000": true, "10.0.0.1:5000": true, "[::1]:5000": true,
		"": false, "http://registry.example": false, "registry.example/team": false, "me@registry.example": false,
	} {
		if err := CheckInsecure([]string{host}); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}
