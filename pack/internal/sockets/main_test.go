package sockets

import (
	"os"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test/leaktest"
)

// asAttacker makes the test binary attack the Unix socket at a path.
const asAttacker = "SOCKETS_TEST_ATTACK"

func TestMain(m *testing.M) {
	if path := os.Getenv(asAttacker); path != "" {
		attack(path)
	}
	leaktest.Main(m)
}
