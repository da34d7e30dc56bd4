// @kubernetes/client-node against the cluster of $KUBECONFIG: create, watch, logs, exec, attach, port-forward.
// Prints one line per thing that worked; the test compares them.
import * as k8s from '@kubernetes/client-node';
import net from 'node:net';
import { PassThrough, Writable } from 'node:stream';

const [namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

class Collected extends Writable {
  text = '';
  _write(chunk, encoding, done) { this.text += chunk; done(); }
}

const until = async (check, what) => {
  for (let i = 0; i < 200; i++) {
    const found = await check();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`never: ${what}`);
};

const seen = [];
const watching = await new k8s.Watch(config).watch(`/api/v1/namespaces/${namespace}/pods`, {},
  (type, pod) => seen.push(`${type} ${pod.metadata.name}`), () => {});
await core.createNamespacedPod({ namespace, body: {
  metadata: { name: 'node-client' },
  spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'c', image: 'busybox', stdin: true,
    command: ['sh', '-c', 'echo started; while read line; do echo heard $line; done'] }] } } });
await until(async () => (await core.readNamespacedPodStatus({ namespace, name: 'node-client' })).status.phase === 'Running', 'running');
console.log('create');
await until(() => seen.includes('ADDED node-client'), 'watched');
watching.abort();
console.log('watch');

const log = new Collected();
await new k8s.Log(config).log(namespace, 'node-client', 'c', log, { follow: false });
await until(() => log.text.includes('started'), 'log');
console.log('logs');

const out = new Collected(), err = new Collected();
const status = await new Promise((resolve, reject) => new k8s.Exec(config).exec(namespace, 'node-client', 'c',
  ['sh', '-c', 'echo out; echo err >&2; exit 3'], out, err, null, false, resolve).catch(reject));
if (out.text !== 'out\n' || err.text !== 'err\n') throw new Error(`exec: ${out.text} ${err.text}`);
console.log('exec', status.details.causes[0].message);

const attached = new Collected(), stdin = new PassThrough();
const socket = await new k8s.Attach(config).attach(namespace, 'node-client', 'c', attached, new Collected(), stdin, false);
stdin.write('hello\n');
await until(() => attached.text.includes('heard hello'), 'attach');
socket.close();
console.log('attach');

const forward = new k8s.PortForward(config);
const server = net.createServer((client) => forward.portForward(namespace, 'echo', [8080], client, null, client));
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const answer = await new Promise((resolve, reject) => {
  let text = '';
  const client = net.connect(server.address().port, '127.0.0.1', () => client.write('GET /from-node HTTP/1.0\r\n\r\n'));
  client.on('data', (data) => { text += data; if (text.includes('/from-node')) resolve(text); });
  client.on('error', reject);
});
console.log('portforward', answer.includes('200'));
server.close();
await core.deleteNamespacedPod({ namespace, name: 'node-client' });
process.exit(0);
