// A certified OpenID provider for tests: node provider.mjs PORT CLIENTS ACCOUNTS.
// CLIENTS is a file of JSON with the clients; ACCOUNTS one with the claims of each
// account, read anew for each question. Anybody may log in as any account.
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, clients, accounts] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: JSON.parse(readFileSync(clients, 'utf8')),
  cookies: { keys: ['for tests only'] },
  pkce: { required: () => true, methods: ['S256'] },
  claims: {
    openid: ['sub'],
    profile: ['preferred_username', 'name'],
    email: ['email', 'email_verified'],
    groups: ['groups', 'team', 'run_as'],
  },
  scopes: ['openid', 'profile', 'email', 'groups'],
  async findAccount(_, id) {
    const all = JSON.parse(readFileSync(accounts, 'utf8'));
    if (!all[id]) return undefined;
    return { accountId: id, claims: async () => ({ sub: id, ...all[id] }) };
  },
});
provider.on('server_error', (_, err) => console.error('server_error', err));
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
