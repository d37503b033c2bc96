package orchctl

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// imageChunk is the size of one message of an upload: gRPC takes 4 MiB at most.
const imageChunk = 256 << 10

func (t *tool) imageCmd() *cobra.Command {
	load := &cobra.Command{
		Use:     "load FILE",
		Short:   "Bring the images of an OCI archive to every node",
		Long:    "Bring the images of an OCI archive (a tar, as `docker save` and `skopeo copy`\nmake it; gzip is unpacked) to every node. - reads standard input.",
		Example: "  orchctl image load web.tar\n  docker save web:1.0 | orchctl image load -",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return t.loadImage(cmd.Context(), args[0]) },
	}
	return group("image", "Look after the nodes' images", `  orchctl image ls
  orchctl image load web.tar
  orchctl image pull registry.example/shop/web:2
  orchctl image rm shop/web:1`, t.imageListCmd(), load, t.imagePullCmd(), t.imageRemoveCmd())
}

func (t *tool) loadImage(ctx context.Context, path string) error {
	archive := t.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return usagef("image %s cannot be read: %w", path, fileReason(err))
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil || info.IsDir() {
			return usagef("image %s is a folder: want an OCI archive, a tar file", path)
		}
		archive = f
	}
	archive, err := plainTar(path, archive)
	if err != nil {
		return err
	}
	client, err := t.connect(ctx, "load image", true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.LoadImage(ctx)
	if err != nil {
		return t.failed(err, "load image", operator)
	}
	sent := make(chan error, 1)
	go func() {
		err := upload(stream, archive)
		if err != nil {
			cancel() // the controller must not take a part for the whole
		}
		sent <- err
	}()
	p := &imageProgress{t: t, state: map[string]string{}}
	err = p.follow(stream)
	cancel()
	// Standard input that never ends must not hold us: its reader dies with us.
	select {
	case upErr := <-sent:
		if upErr != nil {
			return fmt.Errorf("load image %s: %w", path, upErr)
		}
	default:
	}
	if err != nil {
		return t.failed(err, "load image", operator)
	}
	return p.result()
}

// plainTar looks at the archive's first block: what gzip packed is unpacked on
// the way, and what is no tar is refused before any node is bothered.
func plainTar(path string, archive io.Reader) (io.Reader, error) {
	const block = 512 // of a tar
	buffered := bufio.NewReaderSize(archive, imageChunk)
	if head, _ := buffered.Peek(2); string(head) == "\x1f\x8b" {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, usagef("image %s cannot be unpacked: %w", path, err)
		}
		buffered = bufio.NewReaderSize(unpacked, imageChunk)
	}
	head, err := buffered.Peek(block)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("load image %s: %w", path, fileReason(err))
	}
	if len(head) == 0 {
		return nil, usagef("image %s is empty", path)
	}
	if _, err := tar.NewReader(bytes.NewReader(head)).Next(); errors.Is(err, tar.ErrHeader) || len(head) < block {
		return nil, usagef("image %s is no tar: want an OCI archive, as `docker save` and `skopeo copy` make it", path)
	}
	return buffered, nil
}

// upload sends the archive; where the controller ended the stream, its error
// comes with the next Recv.
func upload(stream orchv1.Orch_LoadImageClient, archive io.Reader) error {
	for {
		chunk := make([]byte, imageChunk)
		n, err := io.ReadFull(archive, chunk)
		if n > 0 {
			if sendErr := stream.Send(&orchv1.LoadImageRequest{Data: chunk[:n]}); sendErr != nil {
				return nil
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			_ = stream.CloseSend() // never fails
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// imageProgress prints a line when a node comes further.
type imageProgress struct {
	t     *tool
	state map[string]string // by node
}

func (p *imageProgress) follow(stream orchv1.Orch_LoadImageClient) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if p.state[m.GetNode()] == m.GetState() {
			continue
		}
		p.state[m.GetNode()] = m.GetState()
		line := m.GetState()
		if refs := strings.Join(m.GetRefs(), ", "); refs != "" {
			line += " " + refs
		}
		if m.GetMessage() != "" {
			line += ": " + m.GetMessage()
		}
		if err := p.t.printf("%s: %s\n", cleanText(m.GetNode()), cleanText(line)); err != nil {
			return err
		}
	}
}

// result is a failure unless every node has the image.
func (p *imageProgress) result() error {
	var without []string
	for _, node := range slices.Sorted(maps.Keys(p.state)) {
		if p.state[node] != "loaded" {
			without = append(without, node)
		}
	}
	switch {
	case len(p.state) == 0:
		return errors.New("load image: there is no node to bring it to; `orchctl get nodes` shows them")
	case len(without) > 0:
		return fmt.Errorf("load image: %s without it: %s; load it again when the cause is mended", count(len(without), "node"), strings.Join(without, ", "))
	}
	return nil
}
