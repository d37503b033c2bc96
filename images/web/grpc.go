package main

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// The parts of gRPC and of grpc.health.v1 that a health check needs, by their
// specifications: the image stays small, and the agent's probe is tried against
// something that shares no code with it.
const (
	grpcCheck = "/grpc.health.v1.Health/Check"
	// grpcService is the one service that is known beside the server as a whole.
	grpcService = "web"
	grpcHead    = 5 // one byte of flags, four of length
	grpcMax     = 1 << 10

	grpcOK              = 0
	grpcInvalidArgument = 3
	grpcNotFound        = 5
	grpcUnimplemented   = 12

	healthServing    = 1
	healthNotServing = 2
	// The messages have one field each, number 1: the service's name as text, the
	// status as a number.
	tagService = 1<<3 | 2
	tagStatus  = 1 << 3
)

// serveGRPC answers health checks, on HTTP/2 without TLS, until it cannot.
func (w *web) serveGRPC(l net.Listener) error {
	server := &http.Server{Handler: http.HandlerFunc(w.check), ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	return server.Serve(l)
}

func (w *web) check(rw http.ResponseWriter, r *http.Request) {
	end := func(code int, message string) {
		rw.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
		rw.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
	}
	rw.Header().Set("Content-Type", "application/grpc")
	if r.URL.Path != grpcCheck {
		end(grpcUnimplemented, "unknown method")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, grpcMax))
	service, ok := askedService(body)
	switch {
	case err != nil || !ok:
		end(grpcInvalidArgument, "no health check request")
		return
	case service != "" && service != grpcService:
		end(grpcNotFound, "unknown service")
		return
	}
	status := byte(healthServing)
	if w.unwell() != "" {
		status = healthNotServing
	}
	_, _ = rw.Write([]byte{0, 0, 0, 0, 2, tagStatus, status}) // a client that has gone does not want it
	end(grpcOK, "")
}

// askedService reads a request's message; ok is false where it is none.
func askedService(body []byte) (service string, ok bool) {
	if len(body) < grpcHead || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:grpcHead])) != len(body)-grpcHead {
		return "", false
	}
	message := body[grpcHead:]
	if len(message) == 0 {
		return "", true
	}
	if len(message) < 2 || message[0] != tagService || message[1] > 127 || int(message[1]) != len(message)-2 {
		return "", false
	}
	return string(message[2:]), true
}
