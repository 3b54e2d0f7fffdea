import com.amazonaws.auth.AWSCredentialsProvider;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideo;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoClientBuilder;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoPutMedia;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoPutMediaClient;
import com.amazonaws.services.kinesisvideo.PutMediaAckResponseHandler;
import com.amazonaws.services.kinesisvideo.model.AckEvent;
import com.amazonaws.services.kinesisvideo.model.CreateStreamRequest;
import com.amazonaws.services.kinesisvideo.model.FragmentTimecodeType;
import com.amazonaws.services.kinesisvideo.model.GetDataEndpointRequest;
import com.amazonaws.services.kinesisvideo.model.PutMediaRequest;
import java.io.FileInputStream;
import java.util.Date;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** PutMedia ENDPOINT ID SECRET STREAM FILE START_MS: pushes a file; each acknowledgement is a line of the output. */
public final class PutMedia {
    private static final String REGION = "us-west-2";

    public static void main(String[] args) throws Exception {
        String endpoint = args[0];
        AWSCredentialsProvider credentials =
            new AWSStaticCredentialsProvider(new BasicAWSCredentials(args[1], args[2]));
        AmazonKinesisVideo control = AmazonKinesisVideoClientBuilder.standard()
            .withCredentials(credentials)
            .withEndpointConfiguration(new EndpointConfiguration(endpoint, REGION))
            .build();
        control.createStream(new CreateStreamRequest().withStreamName(args[3]).withDataRetentionInHours(2));
        String data = control.getDataEndpoint(
            new GetDataEndpointRequest().withStreamName(args[3]).withAPIName("PUT_MEDIA")).getDataEndpoint();
        AmazonKinesisVideoPutMedia client = AmazonKinesisVideoPutMediaClient.builder()
            .withRegion(REGION)
            .withEndpoint(data)
            .withCredentials(credentials)
            .build();
        CountDownLatch done = new CountDownLatch(1);
        PutMediaRequest request = new PutMediaRequest()
            .withStreamName(args[3])
            .withFragmentTimecodeType(FragmentTimecodeType.RELATIVE)
            .withProducerStartTimestamp(new Date(Long.parseLong(args[5])))
            .withPayload(new FileInputStream(args[4]));
        client.putMedia(request, new PutMediaAckResponseHandler() {
            @Override
            public void onAckEvent(AckEvent event) {
                System.out.println(event.getAckEventType() + " " + event.getFragmentTimecode() + " "
                    + event.getFragmentNumber() + " " + event.getErrorCode());
            }

            @Override
            public void onFailure(Throwable failure) {
                System.out.println("FAILURE " + failure);
                done.countDown();
            }

            @Override
            public void onComplete() {
                System.out.println("COMPLETE");
                done.countDown();
            }
        });
        if (!done.await(60, TimeUnit.SECONDS)) {
            System.out.println("TIMEOUT");
        }
        client.close();
        System.exit(0);
    }
}
