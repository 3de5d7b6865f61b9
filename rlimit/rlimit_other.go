//go:build !linux && !darwin && !freebsd

package rlimit

import "errors"

var numbers map[Resource]int

func get(int, Resource) (Limit, error) { return Limit{}, errors.ErrUnsupported }
func set(int, Resource, Limit) error   { return errors.ErrUnsupported }
func ceiling(Resource) uint64          { return Infinity }
