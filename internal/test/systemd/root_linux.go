package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/gopherpack/gopherpack/internal/test"
)

// release is the Debian whose systemd is booted, 257. 253 is the first that knows Type=notify-reload.
const release = "trixie"

// rootFiles returns the directory with the root file system, which is made unless it is there. It skips the test where
// that cannot be.
func rootFiles(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to boot systemd takes root")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // there is no HOME
	}
	root := filepath.Join(cache, "gopherpack-test", release)
	if _, err := os.Stat(root); err == nil {
		return root
	}
	if !test.Full() {
		t.Skipf("there is no root file system in %s; with PACK_TEST_FULL=1 the test makes it, of Debian's packages", root)
	}
	mmdebstrap, err := exec.LookPath("mmdebstrap")
	if err != nil {
		t.Skipf("there is no root file system in %s, and nothing to make it with: %v", root, err)
	}
	source := packageSource()
	if source == "" {
		t.Skip("this machine has no source of Debian packages in /etc/apt")
	}
	if err := makeRoot(mmdebstrap, source, root); err != nil {
		t.Skipf("the root file system cannot be made: %v", err)
	}
	return root
}

// makeRoot unpacks the packages that the system needs, under another name until they are all there.
func makeRoot(mmdebstrap, source, root string) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(root), release+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "root")
	cmd := exec.Command(mmdebstrap, "--quiet", "--variant=extract", "--include=systemd,dash,coreutils,util-linux",
		"--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", release, made, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if err := os.Rename(made, root); err != nil && !errors.Is(err, os.ErrExist) { // somebody else was faster
		return err
	}
	return nil
}

// packageSource returns where this machine has Debian's packages from.
func packageSource() string {
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, file := range append(files, "/etc/apt/sources.list") {
		text, _ := os.ReadFile(file)
		if m := debian.FindSubmatch(text); m != nil {
			return string(m[1])
		}
	}
	return ""
}

// debian matches such a source that is not commented out, in either format.
var debian = regexp.MustCompile(`(?m)^[^#\n]*?(https?://\S+/debian/?)(?:\s|$)`)
