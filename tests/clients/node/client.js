// Calls a server with @grpc/grpc-js, its messages loaded from the .proto file at run time.
// node client.js ADDRESS PROTO_DIRECTORY
'use strict';
const assert = require('node:assert');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const READINGS_FAHRENHEIT = [-40, 21.8, 32, 50, 81.9, 98.6, 212];
const MANY = 50;

const [, , address, root] = process.argv;
const definition = loader.loadSync('proto/inference/v2/open_inference.proto', {
  includeDirs: [root], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true,
});
const { inference } = grpc.loadPackageDefinition(definition);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());

const celsius = (fahrenheit) => ((fahrenheit - 32) * 5) / 9;
const close = (given, readings) => {
  assert.strictEqual(given.length, readings.length);
  given.forEach((value, index) => assert.ok(Math.abs(value - celsius(readings[index])) < 1e-4, `${value} for ${readings[index]}`));
};
const call = (method, request) =>
  new Promise((resolve, reject) => {
    const deadline = new Date(Date.now() + 30_000);
    client[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

function rawRequest(readings, fields) {
  const raw = Buffer.alloc(4 * readings.length);
  readings.forEach((value, index) => raw.writeFloatLE(value, 4 * index));
  const inputs = [{ name: 'fahrenheit', datatype: 'FP32', shape: [readings.length, 1] }];
  return { model_name: 'linear', inputs, raw_input_contents: [raw], ...fields };
}

function typedRequest(readings, fields) {
  const contents = { fp32_contents: readings };
  const inputs = [{ name: 'fahrenheit', datatype: 'FP32', shape: [readings.length, 1], contents }];
  return { model_name: 'linear', inputs, ...fields };
}

const rawFloats = (raw) => Array.from({ length: raw.length / 4 }, (_, index) => raw.readFloatLE(4 * index));

async function unary() {
  assert.ok((await call('ServerLive', {})).live);
  assert.ok((await call('ServerReady', {})).ready);
  assert.ok((await call('ModelReady', { name: 'linear' })).ready);
  assert.strictEqual((await call('ServerMetadata', {})).name, 'quicksilver');
  const metadata = await call('ModelMetadata', { name: 'linear' });
  assert.deepStrictEqual(metadata.inputs, [{ name: 'fahrenheit', datatype: 'FP32', shape: ['-1', '1'] }]);
  const config = (await call('ModelConfig', { name: 'linear' })).config;
  assert.strictEqual(config.input[0].data_type, 'TYPE_FP32');
  const index = (await call('RepositoryIndex', {})).models;
  assert.ok(index.some((entry) => entry.name === 'linear' && entry.version === '2' && entry.state === 'READY'));

  const raw = await call('ModelInfer', rawRequest(READINGS_FAHRENHEIT, { id: '17' }));
  assert.strictEqual(raw.id, '17');
  close(rawFloats(raw.raw_output_contents[0]), READINGS_FAHRENHEIT);
  const typed = await call('ModelInfer', typedRequest(READINGS_FAHRENHEIT, { outputs: [{ name: 'extrapolated' }, { name: 'celsius' }] }));
  assert.strictEqual(typed.raw_output_contents.length, 0);
  assert.deepStrictEqual(typed.outputs[0].contents.bool_contents, [true, false, false, false, false, true, true]);
  close(typed.outputs[1].contents.fp32_contents, READINGS_FAHRENHEIT);

  const stats = (await call('ModelStatistics', { name: 'linear', version: '1' })).model_stats[0];
  assert.ok(BigInt(stats.inference_count) >= 2n * BigInt(READINGS_FAHRENHEIT.length));
  await assert.rejects(call('ModelInfer', rawRequest([32], { model_name: 'absent' })), { code: grpc.status.NOT_FOUND });
  await assert.rejects(call('ModelInfer', rawRequest([-500])), { code: grpc.status.INVALID_ARGUMENT });
  await assert.rejects(call('ModelInfer', { ...typedRequest([32]), raw_input_contents: [Buffer.alloc(4)] }), { code: grpc.status.INVALID_ARGUMENT });
}

function stream() {
  return new Promise((resolve, reject) => {
    const answers = [];
    const call = client.ModelStreamInfer();
    call.on('data', (answer) => answers.push(answer));
    call.on('error', reject);
    call.on('end', () => resolve(answers));
    for (let index = 0; index < MANY; index += 1) call.write(rawRequest([index], { id: String(index) }));
    call.write(rawRequest([0], { id: 'bad', model_name: 'absent' }));
    call.end();
  });
}

async function main() {
  await unary();
  const answers = await stream();
  assert.strictEqual(answers.length, MANY + 1);
  answers.slice(0, MANY).forEach(({ infer_response: answer }, index) => {
    assert.strictEqual(answer.id, String(index));
    close(rawFloats(answer.raw_output_contents[0]), [index]);
  });
  assert.match(answers[MANY].error_message, /no model 'absent'/);
  client.close();
  console.log('grpc-js: all as it should be');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
