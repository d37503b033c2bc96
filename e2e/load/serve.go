package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Whoami is what the server in images/web says of itself and of its client.
type Whoami struct {
	Hostname, Version string
	Replica           string `json:",omitempty"`
	Slot              string `json:",omitempty"`
	Epoch             string `json:",omitempty"`
	Node              string `json:",omitempty"`
	// Client is the client's address as it came to the server.
	Client string
	// Well is when the server first said that it is ready; zero: not yet.
	Well time.Time `json:",omitzero"`
}

// jobMax is the largest text of a job, in bytes.
const jobMax = 1 << 20

// Server runs jobs on request: POST /run?id=ID with a Job answers with its Report
// when it is done; POST /stop?id=ID ends it. The zero value is ready.
type Server struct {
	mu   sync.Mutex
	jobs map[string]context.CancelFunc
}

// Handle adds its paths to a mux.
func (s *Server) Handle(mux *http.ServeMux) {
	mux.HandleFunc("POST /run", s.run)
	mux.HandleFunc("POST /stop", s.stop)
}

func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(io.LimitReader(r.Body, jobMax))
	var j Job
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := r.URL.Query().Get("id")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.mu.Lock()
	if s.jobs == nil {
		s.jobs = map[string]context.CancelFunc{}
	}
	_, known := s.jobs[id]
	if !known {
		s.jobs[id] = cancel
	}
	s.mu.Unlock()
	if known {
		http.Error(w, fmt.Sprintf("job %q runs already", id), http.StatusConflict)
		return
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.jobs, id)
	}()
	report, err := Run(ctx, j)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(report) // a client that has gone does not want it
}

func (s *Server) stop(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.URL.Query().Get("id")
	cancel, ok := s.jobs[id]
	if !ok {
		http.Error(w, fmt.Sprintf("no job %q runs", id), http.StatusNotFound)
		return
	}
	cancel()
}

// Ask posts a job to a Server at base ("http://10.64.1.2:8080") and waits for its
// report.
func Ask(ctx context.Context, c *http.Client, base, id string, j Job) (Report, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return Report{}, err
	}
	body, err := post(ctx, c, base+"/run?id="+id, text)
	if err != nil {
		return Report{}, fmt.Errorf("run job %s at %s: %w", id, base, err)
	}
	var r Report
	if err := json.Unmarshal(body, &r); err != nil {
		return Report{}, fmt.Errorf("run job %s at %s: read report: %w", id, base, err)
	}
	return r, nil
}

// Stop ends a job; its report goes to who asked for it.
func Stop(ctx context.Context, c *http.Client, base, id string) error {
	if _, err := post(ctx, c, base+"/stop?id="+id, nil); err != nil {
		return fmt.Errorf("stop job %s at %s: %w", id, base, err)
	}
	return nil
}

func post(ctx context.Context, c *http.Client, url string, text []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return body, nil
}
