package tracefs

// MountPrivate and WalkEvents are for tests outside of the package, which ktest imports.
func MountPrivate() (FS, error) { return mountPrivate(nil) }

// WalkEvents lists events without available_events.
func WalkEvents(f FS) ([]Event, error) { return f.walkEvents() }
