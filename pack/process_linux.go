package pack

import "os"

// executable returns what a worker runs: the very file that this process runs, also when another has taken its
// place on disk meanwhile. If it has not, its path is preferred, since ps shows that name.
func executable() (string, error) {
	const running = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return running, nil
	}
	now, err := os.Stat(path)
	if err != nil {
		return running, nil
	}
	if self, err := os.Stat(running); err != nil || !os.SameFile(now, self) {
		return running, nil
	}
	return path, nil
}
