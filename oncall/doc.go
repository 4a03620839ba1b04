// Package oncall says who is on duty: it asks PagerDuty, Opsgenie and iCalendar files or
// URLs, or reads a rota written in HCL, and matches the people there with users here.
//
// An answer is kept for a minute. A source that cannot be asked is an error, never an
// older answer: then people decide instead.
package oncall
