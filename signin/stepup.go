package signin

// StepUpURL is the page where people who are signed in show a second factor and come back
// to next, a local path; empty where there is none.
func (s *Service) StepUpURL(next string) string {
	if s.stepUp == nil {
		return ""
	}
	return s.stepUp(LocalPath(next))
}
