package pack

import (
	"fmt"
	"os"
	"strconv"
)

// The environment variables by which an operator overrides Config.
const (
	envWorkers   = "GOPHERPACK_WORKERS"
	envCPUs      = "GOPHERPACK_CPUS"
	envPlacement = "GOPHERPACK_PLACEMENT"
	envInline    = "GOPHERPACK_INLINE"
	envLog       = "GOPHERPACK_LOG" // not of Config: it counts where that has no Logger
)

// overrideByEnv sets the fields whose variables are set. One that is empty, as compose files have it, is not.
func (c *Config) overrideByEnv() error {
	if text := os.Getenv(envWorkers); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return envError(envWorkers, text, "a number of workers, at least 1")
		}
		c.Workers = n
	}
	if text := os.Getenv(envCPUs); text != "" {
		if err := c.CPUs.UnmarshalText([]byte(text)); err != nil || c.CPUs.Len() == 0 {
			return envError(envCPUs, text, "a list of CPUs, such as 0-3,8")
		}
	}
	if text := os.Getenv(envPlacement); text != "" {
		if err := c.Placement.UnmarshalText([]byte(text)); err != nil {
			return envError(envPlacement, text, "cpu, core, cache, node or package")
		}
	}
	if _, err := envBool(envInline); err != nil {
		return err
	}
	return nil
}

// envBool returns the value of a variable that is true or false, by default false.
func envBool(name string) (bool, error) {
	text := os.Getenv(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, envError(name, text, "0 or 1")
	}
	return on, nil
}

func envError(name, value, want string) error {
	return fmt.Errorf("environment variable %s=%.100q: want %s", name, value, want)
}
