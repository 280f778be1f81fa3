// The Node client against one server or ensemble: `node checks.js HOSTS` prints "ok NAME" for each check that
// holds, "failed NAME" and why for those that do not.
'use strict';

const assert = require('assert');
const crypto = require('crypto');
const zookeeper = require('node-zookeeper-client');

const WAIT_MS = 15000;
const hosts = process.argv[2];
const root = `/node-${process.pid}`;
const {ACL, CreateMode, Event, Exception, Id, Permission} = zookeeper;

function within(promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), WAIT_MS);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function connect(where = hosts) {
    const client = zookeeper.createClient(where, {sessionTimeout: 10000, retries: 3});
    const connected = new Promise(resolve => client.once('connected', resolve));
    client.connect();
    return within(connected, 'a connection').then(() => client);
}

/** A call whose callback gets (error, ...results); the promise has the results. */
function call(client, method, ...parameters) {
    const done = new Promise((resolve, reject) => {
        client[method](...parameters, (error, ...results) => (error ? reject(error) : resolve(results)));
    });
    return within(done, method);
}

async function refused(code, promise) {
    await assert.rejects(promise, error => {
        assert.strictEqual(error.getCode(), code);
        return true;
    });
}

/** A write, behind which this client sees what others have done until now (it has no sync). */
function catchUp(client) {
    return call(client, 'setData', root, Buffer.from('x'));
}

/** A watcher and the promise of its event as [name, path]. */
function watcher() {
    let watch;
    const event = new Promise(resolve => {
        watch = one => resolve([one.getName(), one.getPath()]);
    });
    return [watch, within(event, 'an event')];
}

const checks = {
    async nodes(client) {
        const path = `${root}/a`;
        assert.deepStrictEqual(await call(client, 'create', path, Buffer.from('one')), [path]);
        const [data, stat] = await call(client, 'getData', path);
        assert.strictEqual(data.toString(), 'one');
        assert.strictEqual(stat.version, 0);
        const [changed] = await call(client, 'setData', path, Buffer.from('second'), 0);
        assert.strictEqual(changed.version, 1);
        await refused(Exception.BAD_VERSION, call(client, 'setData', path, Buffer.from('x'), 0));
        await refused(Exception.NODE_EXISTS, call(client, 'create', path));
        await refused(Exception.NO_NODE, call(client, 'create', `${root}/x/y`));
        await refused(Exception.NOT_EMPTY, call(client, 'remove', root));
        const [absent] = await call(client, 'exists', `${root}/none`);
        assert.strictEqual(absent, null);
        const [names, parent] = await call(client, 'getChildren', root);
        assert.deepStrictEqual(names, ['a']);
        assert.strictEqual(parent.numChildren, 1);
        await call(client, 'remove', path, 1);
    },

    async modes(client) {
        const mode = CreateMode.EPHEMERAL_SEQUENTIAL;
        for (let number = 0; number < 3; number++) {
            const [path] = await call(client, 'create', `${root}/s-`, null, mode);
            assert.match(path, new RegExp(`^${root}/s-[0-9]{10}$`));
        }
        const [path] = await call(client, 'create', `${root}/e`, CreateMode.EPHEMERAL);
        const [stat] = await call(client, 'exists', path);
        assert.deepStrictEqual(stat.ephemeralOwner, client.getSessionId());
    },

    async 'make a whole path'(client) {
        assert.deepStrictEqual(await call(client, 'mkdirp', `${root}/p/q/r`), [`${root}/p/q/r`]);
        await call(client, 'mkdirp', `${root}/p/q/r`);
        assert.deepStrictEqual((await call(client, 'getChildren', `${root}/p/q`))[0], ['r']);
    },

    async watches(client) {
        const path = `${root}/w`;
        let [watch, event] = watcher();
        await call(client, 'exists', path, watch);
        await call(client, 'create', path);
        assert.deepStrictEqual(await event, ['NODE_CREATED', path]);
        [watch, event] = watcher();
        await call(client, 'getData', path, watch);
        await call(client, 'setData', path, Buffer.from('1'));
        assert.deepStrictEqual(await event, ['NODE_DATA_CHANGED', path]);
        [watch, event] = watcher();
        await call(client, 'getChildren', path, watch);
        await call(client, 'create', `${path}/c`);
        assert.deepStrictEqual(await event, ['NODE_CHILDREN_CHANGED', path]);
        [watch, event] = watcher();
        await call(client, 'exists', `${path}/c`, watch);
        await call(client, 'remove', `${path}/c`);
        assert.deepStrictEqual(await event, ['NODE_DELETED', `${path}/c`]);
    },

    async multi(client) {
        const path = `${root}/m`;
        const good = client.transaction().create(path, Buffer.from('1')).setData(path, Buffer.from('2'), 0).check(path, 1);
        const [results] = await call(good, 'commit');
        assert.strictEqual(results.length, 3);
        const bad = client.transaction().remove(path).check(path, 7);
        await assert.rejects(call(bad, 'commit'));
        const [stat] = await call(client, 'exists', path);
        assert.strictEqual(stat.version, 1);
    },

    async 'access control lists'(client) {
        const user = await connect();
        user.addAuthInfo('digest', Buffer.from('user:secret'));
        const hash = crypto.createHash('sha1').update('user:secret').digest('base64');
        const acls = [new ACL(Permission.ALL, new Id('digest', `user:${hash}`))];
        const path = `${root}/mine`;
        await call(user, 'create', path, acls);
        await catchUp(client);
        await refused(Exception.NO_AUTH, call(client, 'getData', path));
        const [list] = await call(user, 'getACL', path);
        assert.strictEqual(list[0].id.id, `user:${hash}`);
        await call(user, 'setACL', path, ACL.READ_ACL_UNSAFE, 0);
        await catchUp(client);
        await call(client, 'getData', path);
        await refused(Exception.NO_AUTH, call(client, 'setData', path, Buffer.from('x')));
        user.close();
    },

    async chroot(client) {
        await call(client, 'create', `${root}/ch`);
        const inside = await connect(`${hosts}${root}/ch`);
        assert.deepStrictEqual(await call(inside, 'create', '/x'), ['/x']);
        await catchUp(client);
        const [stat] = await call(client, 'exists', `${root}/ch/x`);
        assert.strictEqual(stat.version, 0);
        inside.close();
    },

    async sessions(client) {
        const other = await connect();
        await call(other, 'create', `${root}/held`, CreateMode.EPHEMERAL);
        const [watch, event] = watcher();
        await catchUp(client);
        await call(client, 'exists', `${root}/held`, watch);
        other.close();
        assert.deepStrictEqual(await event, ['NODE_DELETED', `${root}/held`]);
    },

    async pipeline(client) {
        await call(client, 'create', `${root}/q`);
        const mode = CreateMode.PERSISTENT_SEQUENTIAL;
        const made = Array.from({length: 300}, () => call(client, 'create', `${root}/q/s-`, null, mode));
        const paths = (await Promise.all(made)).map(([path]) => path);
        assert.deepStrictEqual(paths, [...paths].sort());
        assert.strictEqual(new Set(paths).size, 300);
    },
};

(async () => {
    const client = await connect();
    await call(client, 'create', root);
    for (const [name, check] of Object.entries(checks)) {
        try {
            await check(client);
            console.log(`ok ${name}`);
        } catch (error) {
            console.log(`failed ${name}`);
            console.log(error);
        }
    }
    process.exit();
})();
