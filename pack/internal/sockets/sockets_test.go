package sockets

import (
	"testing"

	"github.com/gopherpack/gopherpack/pack/internal/wire"
)

func TestOpen(t *testing.T) {
	k := New(Files{Mode: 0o600})
	defer k.Close()
	for _, e := range []wire.Endpoint{
		{Network: "tcp", Address: "localhost:0"}, {Network: "unix", Address: t.TempDir() + "/x"}, {Network: "unix", Address: "@gopherpack-test"},
	} {
		info, err := k.Open(t.Context(), e, 3)
		t.Log(info, err)
	}
	t.Log(k.Infos(), k.Queued())
}
