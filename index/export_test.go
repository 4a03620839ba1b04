package index

// Active is how many sessions the keeper visits.
func (k *Keeper) Active() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.active)
}
