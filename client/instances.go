package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/smithy-go"
)

// Instance is a machine as EC2 lists it. SSM tells neither names nor tags of those.
type Instance struct {
	ID    string
	State string // running, stopped, …
	Tags  map[string]string
}

const (
	ec2Version = "2016-11-15"
	ec2Page    = "1000"
	// maxInstancePages bounds a listing: a server may hand out tokens forever.
	maxInstancePages = 1000
)

// describedInstances is the answer of DescribeInstances, as far as it is used.
type describedInstances struct {
	Instances []struct {
		ID    string `xml:"instanceId"`
		State string `xml:"instanceState>name"`
		Tags  []struct {
			Key   string `xml:"key"`
			Value string `xml:"value"`
		} `xml:"tagSet>item"`
	} `xml:"reservationSet>item>instancesSet>item"`
	NextToken string `xml:"nextToken"`
}

// Instances lists the EC2 instances of the region that the caller may see. Why by hand:
// the SDK's package for EC2 is larger than all of this program.
func (a *API) Instances(ctx context.Context) ([]Instance, error) {
	var all []Instance
	token := ""
	for range maxInstancePages {
		out, err := a.describeInstances(ctx, token)
		if err != nil {
			return nil, &smithy.OperationError{ServiceID: "EC2", OperationName: "DescribeInstances", Err: err}
		}
		for _, i := range out.Instances {
			n := Instance{ID: i.ID, State: i.State, Tags: map[string]string{}}
			for _, t := range i.Tags {
				n.Tags[t.Key] = t.Value
			}
			all = append(all, n)
		}
		if token = out.NextToken; token == "" {
			break
		}
	}
	return all, nil
}

func (a *API) describeInstances(ctx context.Context, token string) (*describedInstances, error) {
	form := url.Values{"Action": {"DescribeInstances"}, "Version": {ec2Version}, "MaxResults": {ec2Page}}
	if token != "" {
		form.Set("NextToken", token)
	}
	status, answer, err := a.postForm(ctx, "ec2", a.ec2Endpoint(), a.cfg.Region, form.Encode())
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, queryError(status, answer)
	}
	out := &describedInstances{}
	if err := xml.Unmarshal(answer, out); err != nil {
		return nil, fmt.Errorf("decoding the answer: %w", err)
	}
	return out, nil
}

// ec2Endpoint is where EC2 is: as configured, or AWS's own.
func (a *API) ec2Endpoint() string {
	if url := os.Getenv("AWS_ENDPOINT_URL_EC2"); url != "" {
		return url
	}
	if a.cfg.BaseEndpoint != nil {
		return *a.cfg.BaseEndpoint
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(a.cfg.Region, "cn-") {
		domain += ".cn"
	}
	return "https://ec2." + a.cfg.Region + "." + domain
}

// postForm signs and sends a request of AWS's Query protocol.
func (a *API) postForm(ctx context.Context, service, endpoint, region, body string) (int, []byte, error) {
	if err := secure("the endpoint", endpoint); err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if req.URL.Path == "" {
		req.URL.Path = "/"
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	req.Header.Set("User-Agent", a.agent)
	sum := sha256.Sum256([]byte(body))
	if err := a.sign(ctx, req, hex.EncodeToString(sum[:]), service, region); err != nil {
		return 0, nil, err
	}
	return a.send(req)
}

// sign signs a request for a service of a region.
func (a *API) sign(ctx context.Context, req *http.Request, hash, service, region string) error {
	credentials, err := a.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("getting credentials: %w", err)
	}
	if err := a.signer.SignHTTP(ctx, credentials, req, hash, service, region, time.Now()); err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	return nil
}

// send sends a signed request; the answer is read up to maxAnswer.
func (a *API) send(req *http.Request) (int, []byte, error) {
	res, err := a.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	a.noteClock(res.Header.Get("Date"))
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, err
	}
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("answer exceeds %d bytes", maxAnswer)
	}
	return res.StatusCode, answer, nil
}

// queryError turns an error of AWS's Query protocol into a smithy.APIError. EC2 wraps it
// once more than others.
func queryError(status int, answer []byte) error {
	type queried struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	var body struct {
		Error queried `xml:"Error"`
		EC2   queried `xml:"Errors>Error"`
	}
	if err := xml.Unmarshal(answer, &body); err != nil {
		return fmt.Errorf("it answered with status %d", status)
	}
	for _, e := range []queried{body.Error, body.EC2} {
		if e.Code != "" {
			return &smithy.GenericAPIError{Code: e.Code, Message: e.Message}
		}
	}
	return fmt.Errorf("it answered with status %d", status)
}
