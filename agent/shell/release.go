package shell

// Release lets go of a program that has exited, in place of Close: what it started and
// left behind goes on. It must not be called before Exited is closed.
func (p *Process) Release() {
	p.closing.Do(func() {
		if p.group != nil {
			p.group.release()
		}
		p.CloseWrite()
		p.out.Close()
		if p.errs != nil {
			p.errs.Close()
		}
		p.cmd.Wait() // reaps; the status is known already
		close(p.closed)
	})
	<-p.closed
}
